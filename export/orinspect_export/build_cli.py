"""The command `build`: a TensorRT engine, on the device that will run it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orinspect_edge_runtime.errors import InputError

if TYPE_CHECKING:
    from orinspect_edge_runtime.bundle import Bundle
    from orinspect_edge_runtime.device import Device
    from orinspect_edge_runtime.passport import EnginePassport

LIBRARY = "tensorrt"


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--precision", default="fp16", show_default=True, help="Graph to build from: fp32, fp16 or int8.")
@click.option("--head", default="patchcore", show_default=True, help="Head of the graph: patchcore, padim or student.")
@click.option("--recipe", help="Tune the engine for this recipe's memory bank; it runs every other recipe as well.")
@click.option(
    "--batch", default=8, show_default=True, type=click.IntRange(1), help="Largest number of frames in one call."
)
@click.option("--level", default=3, show_default=True, type=click.IntRange(0, 5), help="0: quick build, 5: slow build.")
@click.option("--dla", type=click.IntRange(0, 1), help="Build for this DLA core; the GPU takes what the DLA cannot.")
@click.option("--dla-force", is_flag=True, help="Build for the DLA even when the GPU alone would be quicker.")
@click.option("--force", is_flag=True, help="Build again although a valid engine is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the passport as JSON on stdout.")
def build(bundle: Path, force: bool, as_json: bool, **options: Any) -> None:
    """Build a TensorRT engine of a bundle, on the device that will run it.

    \b
    Example:  orinspect build BUNDLE --precision fp16
    The engine is published under BUNDLE/engines only after it has reproduced the bundle's golden outputs.
    """
    from orinspect_edge_runtime.bundle import Bundle
    from orinspect_edge_runtime.device import this_device, with_library
    from orinspect_edge_runtime.engine import engine_folder
    from orinspect_export.build_worker import import_library
    from orinspect_export.engine_build import BuildRequest

    opened, request = Bundle.open(bundle), BuildRequest(**options)
    spec = opened.manifest.graph(request.precision, request.head)
    if request.precision.endswith("-cpu"):
        raise InputError(f"the {request.precision} graph is laid out for CPUs, TensorRT takes none like it: use int8")
    here = with_library(this_device(), import_library(LIBRARY))
    if not force and _is_built(opened, here, request.precision, request.head):
        click.echo(f"{engine_folder(bundle, spec)} is valid for this device: nothing to build (--force builds anyway)")
        return
    _tell(_build(opened, request, here), engine_folder(bundle, spec), as_json)


def _is_built(bundle: Bundle, here: Device, precision: str, head: str) -> bool:
    from orinspect_edge_runtime.engine import checked_engine
    from orinspect_edge_runtime.errors import OrinspectError

    spec = bundle.manifest.graph(precision, head)
    try:
        return checked_engine(bundle.path, spec, bundle.manifest.files[spec.file].sha256, here) is not None
    except OrinspectError as error:
        click.echo(f"orinspect: {error}", err=True)
        return False


def _build(bundle: Bundle, request: Any, here: Device) -> EnginePassport:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from orinspect_export.engine_build import build_for_bundle
    from orinspect_export.engine_replay import replay_engine

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"building {request.precision} {request.head}", total=None)

        def show(phase: str, done: int, steps: int) -> None:
            progress.update(task, description=phase, completed=done, total=steps or None)

        def announce(text: str) -> None:
            progress.console.print(f"orinspect: {text}", markup=False)

        return build_for_bundle(bundle, request, here, LIBRARY, replay_engine, show, announce)


def _tell(passport: EnginePassport, folder: Path, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(passport), indent=2))
        return
    build_facts = passport.build
    click.echo(
        f"{folder}: {passport.plan_bytes / 1e6:.1f} MB, built in {build_facts['seconds']} s for {_where(passport)}"
    )
    click.echo(f"golden: cosine {passport.least_cosine:.5f}, rank {passport.rank_correlation:.4f}")


def _where(passport: EnginePassport) -> str:
    place = passport.module_name or "this computer"
    return f"{place}, L4T {passport.l4t or 'none'}, TensorRT {passport.tensorrt}"
