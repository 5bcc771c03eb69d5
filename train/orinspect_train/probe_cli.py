"""`orinspect probe` on the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from orinspect_train.label_probe import Accuracy
    from orinspect_train.probe import Probe

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=PATH)
@click.argument("data", type=PATH)
@click.option("--labels", type=PATH, help="A folder with one subfolder a class: kNN, linear and few-shot accuracy.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def probe(run: Path, data: Path, labels: Path | None, as_json: bool) -> None:
    """What the encoder of a run makes of your images: is it healthy, and would it see a defect?

    \b
    Example:  orinspect probe runs/bracket good_images/
              orinspect probe runs/bracket good_images/ --labels sorted_by_hand/ --json
    """
    from orinspect_train.probe import probe as judge
    from orinspect_train.progress import progress

    with progress() as report:
        found = judge(run, data, labels, report)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        _tell(found)


def _tell(found: Probe) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value", "how to read it", title=f"{found.run} on {found.images} images")
    table.add_row("embedding_std", f"{found.embedding_std:.2f}", "1 is evenly spread; near 0 is a collapse")
    table.add_row("effective_rank", f"{found.effective_rank:.1f}", "directions in use; near 1 is a collapse")
    table.add_row(
        "alignment", f"{found.alignment:.3f}", f"two views ({found.policy}) of an image; 0 is the same, 2 is unrelated"
    )
    table.add_row("uniformity", f"{found.uniformity:.2f}", "pairs of images; 0 is one point, -4 is evenly spread")
    for kind, auroc in found.separation.items():
        both = f"{auroc:.3f}, {found.embedded_separation[kind]:.3f}"
        table.add_row(f"drawn defect: {kind}", both, "AUROC of patches by PaDiM, of the embedding; 0.5 is chance")
    if found.labels is not None:
        chance = f"balanced accuracy (95 % interval); chance is {found.labels.chance:.2f}"
        table.add_row("labels: 5 nearest", _interval(found.labels.knn), chance)
        table.add_row("labels: linear map", _interval(found.labels.linear), chance)
        for shot, accuracy in found.labels.shots.items():
            table.add_row(
                f"labels: {shot} a class", _interval(accuracy), "the same, of a linear map; interval of 20 draws"
            )
    Console(width=110).print(table)


def _interval(found: Accuracy) -> str:
    return f"{found.value:.3f} ({found.least:.3f} to {found.most:.3f})"
