"""Arguments and options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from orinspect_edge_runtime.defect_threshold import Stakes

PATH = click.Path(path_type=Path)
bundle_argument = click.argument("bundle", type=PATH)
recipe_option = click.option("--recipe", help="Recipe to use; not needed when the bundle has only one.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
threads_option = click.option(
    "--threads", type=click.IntRange(0, 1024), default=0, show_default=True, help="CPU threads; 0: all cores."
)
backend_option = click.option(
    "--backend",
    default="auto",
    show_default=True,
    help="auto (a TensorRT engine when one is fit to run, else onnxruntime), tensorrt, onnxruntime, ort-cuda, ort-trt.",
)
engine_option = click.option(
    "--engine",
    default="local",
    show_default=True,
    help="local, or ray: processes of --threads CPUs each (0: one) on the Ray cluster that RAY_ADDRESS names, else here.",
)
_DEFECTS = (
    click.option(
        "--defects",
        type=PATH,
        help="Folder of defects to find the threshold by: that of the best F1, or of the least cost.",
    ),
    click.option("--cost-missed", type=float, help="What a missed defect costs, for the threshold of least cost."),
    click.option(
        "--cost-false-alarm", type=float, default=1.0, show_default=True, help="What a good part rejected costs."
    ),
    click.option("--defect-rate", type=float, help="Share of the line's parts that are defective; needed with costs."),
)


def defects_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a threshold that is found by defects."""
    for option in reversed(_DEFECTS):
        command = option(command)
    return command


def stakes_of(
    defects: bool, cost_missed: float | None, cost_false_alarm: float, defect_rate: float | None
) -> Stakes | None:
    """What those options weigh, None when there are no defects. Raises InputError for costs or a rate without any."""
    from orinspect_edge_runtime.defect_threshold import Stakes
    from orinspect_edge_runtime.errors import InputError

    if not defects and any(map(is_given, ("cost_missed", "cost_false_alarm", "defect_rate"))):
        raise InputError("--cost-missed, --cost-false-alarm and --defect-rate weigh defects: give --defects FOLDER")
    return Stakes(cost_missed, cost_false_alarm, defect_rate) if defects else None


def is_given(option: str) -> bool:
    """Whether an option of the running command was given, and is not just at its default."""
    return click.get_current_context().get_parameter_source(option) is not click.core.ParameterSource.DEFAULT
