"""Advice on the terminal: the table, the words, and the command to go on with."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from orinspect_train.advice import Advice
    from orinspect_train.recommendation import Interval

# Without --minutes.
MINUTES = 2.0


def command(data: Path, given: dict[str, Any], choice: dict[str, Any]) -> str:
    """The command line that follows the advice: the options given, with those of the choice put in. None is left out."""
    options = {name: value for name, value in given.items() if value is not None}
    if "epochs" in choice:
        # What is not trained needs no method.
        options.pop("method", None)
    words = ["orinspect", "pretrain", str(data)]
    for name, value in (options | choice).items():
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join(words)


def show(found: Advice, following: str, as_json: bool) -> None:
    """Print the table, the recommendation and the command to go on with."""
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found) | {"next": following}, indent=2))
        return
    _print_table(found)
    for row in (row for row in found.rows if row.failed):
        click.echo(f"{row.name} failed: {row.failed}")
    for words in found.words:
        click.echo(words)
    if found.left_out:
        click.echo(
            f"No time was left for {', '.join(found.left_out)}: pass --minutes {2 * found.minutes:g} to see them."
        )
    click.echo(f"next:  {following}")


def _print_table(found: Advice) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    kinds = list(next(row.auroc for row in found.rows if row.auroc))
    table = Table(
        title=f"{found.images} images, {found.held_out} of them held out; {found.seconds:.0f} s",
        caption=f"{found.measure}; 95 % intervals. Not to be compared with figures of another scorer. "
        "* trained on drawn defects, which the signal flatters.",
        box=SIMPLE_HEAD,
    )  # fmt: skip
    for name in ("candidate", "steps", "mean AUROC", "gain", *kinds):
        table.add_column(name, no_wrap=True)
    for row in found.rows:
        figures = [f"{row.auroc[kind]:.3f}" for kind in kinds] if row.auroc else []
        gain = _shown(row.gain, "+") if row.gain else "" if row.failed else "(the start)"
        table.add_row(row.name + "*" * row.flattered, str(row.steps or ""), _shown(row.mean, ""), gain, *figures)
    Console(width=126).print(table)


def _shown(found: Interval | None, sign: str) -> str:
    return "failed" if found is None else f"{found.value:{sign}.3f} ({found.least:{sign}.3f} to {found.most:{sign}.3f})"
