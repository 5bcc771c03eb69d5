"""`orinspect demo` on the command line."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True)
@click.option("--epochs", default=2, show_default=True, help="Passes over the good cells when pretraining.")
@click.option("--init", default="imagenet", show_default=True, help="imagenet (from a PyPI package) or scratch.")
@click.option("--seed", default=0, show_default=True, help="Of the split and of everything random.")
def demo(out: Path, epochs: int, init: str, seed: int) -> None:
    """Go the whole way on real solar cells: pretrain, export, fit, evaluate, bench, report.

    \b
    Example:  orinspect demo
    A second run repeats only what is no longer valid.
    """
    import time

    from orinspect_train.demo import run_demo
    from orinspect_train.demo_report import write_demo_report
    from orinspect_train.solar_cells import LICENCE

    start = time.monotonic()
    click.echo(f"Solar cells of the {LICENCE}.")
    journey = run_demo(out, epochs=epochs, init=init, seed=seed)
    page = write_demo_report(out, tuple(step.command for step in journey))
    click.secho(f"\n{page.title}", bold=True)
    for value, meaning in page.facts:
        click.echo(f"  {value}  {meaning}")
    click.echo(f"\nreport: {out / 'report.html'}   ({time.monotonic() - start:.0f} s)")
