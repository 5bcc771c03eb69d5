"""`orinspect qat` on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=PATH)
@click.argument("data", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder of the run to write.")
@click.option(
    "--minutes", type=click.FloatRange(0.05, 10_000), default=4.0, show_default=True, help="Wall clock of it all."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random.")
@click.option("--force", "replace", is_flag=True, help="Replace the run --out.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def qat(run: Path, data: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Train a finished run's encoder until its features survive INT8 (quantisation-aware training).

    \b
    Example:  orinspect qat runs/bracket good_images/ --out runs/bracket-int8
    No labels are needed. Export the new run instead of the old one; nothing is written when it brings no gain.
    """
    from dataclasses import asdict

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    from orinspect_train.qat import finish

    columns = (TextColumn("qat"), BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=1.0)
        done = finish(
            run,
            data,
            out,
            report=lambda share, text: progress.update(task, completed=share, description=text),
            **options,
        )
    if as_json:
        click.echo(json.dumps(asdict(done), indent=2))
        return
    if done.skipped:
        click.echo(f"{done.skipped} unreadable images were skipped", err=True)
    click.echo(
        f"rounding changes unseen images' features by {done.rounding_before:.3f} standard deviations before, "
        f"{done.rounding_after:.3f} after {done.steps} steps in {done.seconds:.0f} s"
    )
    click.echo(f"run: {out}   next:  orinspect export {out} --out BUNDLE --calibration {data}")
