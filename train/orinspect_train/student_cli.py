"""`orinspect student` on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from orinspect_train.student_training import Taught

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=PATH)
@click.argument("data", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder of the run to write.")
@click.option("--steps", type=click.IntRange(1, 1_000_000), default=400, show_default=True, help="Of training.")
@click.option("--minutes", type=click.FloatRange(0.05, 10_000), help="Wall clock of it all, instead of --steps.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random.")
@click.option("--force", "replace", is_flag=True, help="Replace the run --out.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def student(run: Path, data: Path, out: Path, as_json: bool, steps: int, minutes: float | None, **options: Any) -> None:
    """Train a student of a finished run's encoder on good images, for  fit --scorer student.

    \b
    Example:  orinspect student runs/gravel good_images/ --out runs/gravel-student
    No labels are needed. It says, by defects drawn on images it has not seen, whether the student finds more than padim.
    The new run is the old one with a student beside its encoder. A fifth of the images is not learnt from: a recipe's
    threshold rests on those, and on good images that it is given later. One that was killed has written nothing.
    """
    from click.core import ParameterSource

    from orinspect_train.progress import progress
    from orinspect_train.student_training import teach

    if minutes is not None and click.get_current_context().get_parameter_source("steps") is ParameterSource.COMMANDLINE:
        raise click.UsageError("pass --minutes or --steps, not both")
    with progress() as report:
        taught = teach(run, data, out, steps=steps, minutes=minutes, report=report, **options)
    _tell(taught, data, as_json)


def _tell(taught: Taught, data: Path, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        click.echo(json.dumps(asdict(taught), indent=2))
        return
    if taught.skipped:
        click.echo(f"{taught.skipped} unreadable images were skipped", err=True)
    click.echo(
        f"{taught.learnt} images learnt from, {taught.held_out} held out; {taught.steps} steps in {taught.seconds:.0f} s"
    )
    left, learnt = taught.unexplained, taught.unexplained_learnt
    click.echo(f"unexplained of the patches' variance: {left:.0%} in unseen images, {learnt:.0%} in those learnt from")
    by = taught.drawn_defects
    better = "student" if by["student"] > by["padim"] else "padim"
    click.echo(
        f"drawn defects on unseen images, AUROC: padim {by['padim']:.3f}, student {by['student']:.3f}: use {better}"
    )
    click.echo(f"run: {taught.run}   next:  orinspect export {taught.run} --out BUNDLE --calibration {data}")
