"""`orinspect recipe`: what recipes a bundle holds, and everyday changes of them. Each parses, calls, prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orinspect_edge_runtime.options import (
    PATH,
    backend_option,
    bundle_argument,
    defects_options,
    is_given,
    json_option,
)

if TYPE_CHECKING:
    from orinspect_edge_runtime.recipe import Edit, Recipe

recipe_option = click.option("--recipe", help="Recipe to change; not needed when the bundle has only one.")
note_option = click.option("--note", default="", help="A word on why, kept in the history.")


@click.group()
def recipe() -> None:
    """List the recipes of a bundle and change them: nothing is fitted or built again.

    \b
    Example:  orinspect recipe add BUNDLE false_alarm.png --recipe bracket --note "a reflection"
    Every change is whole or did not happen, is kept in the recipe's history, and can be undone.
    """


@recipe.command("list")
@bundle_argument
@json_option
def list_recipes(bundle: Path, as_json: bool) -> None:
    """The recipes of a bundle: scorer, good images, threshold, edits.

    \b
    Example:  orinspect recipe list BUNDLE
    """
    from orinspect_edge_runtime.bundle import Bundle

    opened = Bundle.open(bundle)
    rows = [_row(opened.recipe(name)) for name in sorted(opened.manifest.recipes)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo(f"{bundle} has no recipes: run  orinspect fit {bundle} GOOD_IMAGES")
    for row in rows:
        click.echo(
            f"{row['name']}: {row['scorer']}{_options(row)} {row['precision']}, {row['good_images']} good images "
            f"({' + '.join(map(str, row['group_sizes']))}), threshold {row['threshold']:.3f} ({row['threshold_rule']}) for "
            f"{row['promised_false_alarm']:.2%} false alarms{_defects_found(row)}, {row['edits']} edits"
        )


def _options(row: dict[str, Any]) -> str:
    """Of its scorer, those that are not the default."""
    rank = f" of rank {row['rank']}" if row["rank"] else ""
    ratio = " by likelihood ratio" if row["likelihood_ratio"] else ""
    return rank + ratio + (f" ({row['distances']})" if row["distances"] else "")


def _defects_found(row: dict[str, Any]) -> str:
    return f", {row['defects_found']} of {row['defects']} defects alarm" if row["defects"] else ""


def _row(found: Recipe) -> dict[str, Any]:
    from orinspect_edge_runtime.recipe import in_force
    from orinspect_edge_runtime.recipe_threshold import passing_defects
    from orinspect_edge_runtime.scorers import padim, patchcore

    names = (
        "name",
        "scorer",
        "precision",
        "good_images",
        "group_sizes",
        "threshold",
        "threshold_rule",
        "false_alarm",
        "promised_false_alarm",
        "false_alarm_note",
    )
    defects = {"defects": len(found.defects), "defects_found": len(found.defects) - len(passing_defects(found))}
    rest = {
        "distances": patchcore.told_options(found.arrays),
        "edits": len(in_force(found.edits)),
        "backend": found.backend,
        "created_with": found.created_with,
    }
    return {name: getattr(found, name) for name in names} | defects | padim.options_of(found.arrays) | rest


@recipe.command()
@bundle_argument
@recipe_option
@click.option("--images", is_flag=True, help="List the good images that the recipe holds instead.")
@json_option
def history(bundle: Path, recipe: str | None, images: bool, as_json: bool) -> None:
    """Every change of a recipe since it was fitted, oldest first; or with --images what `forget` can name.

    \b
    Example:  orinspect recipe history BUNDLE --recipe bracket
    """
    from orinspect_edge_runtime.bundle import Bundle

    found = Bundle.open(bundle).recipe(recipe)
    if images:
        names = [name for name in found.images if name]
        click.echo(json.dumps(names, indent=2) if as_json else "\n".join(names))
    elif as_json:
        click.echo(json.dumps(list(map(vars, found.edits)), indent=2))
    else:
        click.echo(f"fitted on {found.backend} by {found.created_with}")
        for edit in found.edits:
            _tell(edit)


@recipe.command()
@bundle_argument
@recipe_option
@click.option("--sheet", type=PATH, help="HTML page to write, with pictures of each kind (extra `report`).")
@json_option
def groups(bundle: Path, recipe: str | None, sheet: Path | None, as_json: bool) -> None:
    """The kinds of good image that a recipe tells apart.

    \b
    Example:  orinspect recipe groups BUNDLE --recipe bracket --sheet kinds.html
    """
    from orinspect_edge_runtime.bundle import Bundle
    from orinspect_edge_runtime.errors import RecipeError

    opened = Bundle.open(bundle)
    found = opened.recipe(recipe)
    if "image_groups" not in found.arrays:
        raise RecipeError(f"recipe {found.name!r} does not say which image is of which kind; fit it again")
    if sheet is not None:
        from orinspect_edge_runtime.report import groups_page, write_report

        write_report(sheet, groups_page(found, opened.manifest.preprocess))
    kinds = [
        [name for name, of in zip(found.images, found.arrays["image_groups"], strict=True) if of == group and name]
        for group in range(len(found.group_sizes))
    ]
    if as_json:
        click.echo(json.dumps(kinds, indent=2))
        return
    for number, names in enumerate(kinds, 1):
        click.echo(f"kind {number}: {len(names)} images, for example {', '.join(names[:3])}")


@recipe.command()
@bundle_argument
@click.argument("images", type=PATH, nargs=-1, required=True)
@recipe_option
@note_option
@backend_option
@json_option
def add(bundle: Path, images: tuple[Path, ...], recipe: str | None, note: str, backend: str, as_json: bool) -> None:
    """Teach a recipe good images, or that alarms were false.

    \b
    Example:  orinspect recipe add BUNDLE false_alarm.png --recipe bracket
    What the recipe lacks of an image enters it. No score rises by that, so the threshold keeps its promise. Images that
    were added before one that cannot be read stay added.
    """
    from orinspect_edge_runtime.detector import Detector
    from orinspect_edge_runtime.preprocess import list_images
    from orinspect_edge_runtime.recipe_edit import mark_good

    paths, edits = list_images(list(images)), []
    with Detector.load(bundle, recipe, backend=backend) as detector:
        for path in paths:
            edits.append(mark_good(detector.bundle, recipe, path, note=note, detector=detector))
            if not as_json:
                _tell(edits[-1])
    if as_json:
        click.echo(json.dumps(list(map(vars, edits)), indent=2))


@recipe.command()
@bundle_argument
@click.argument("image")
@recipe_option
@note_option
@json_option
def forget(bundle: Path, image: str, recipe: str | None, note: str, as_json: bool) -> None:
    """Let a recipe forget an image, for example a defect that lay among the good ones.

    \b
    Example:  orinspect recipe forget BUNDLE good/0007.png --recipe bracket
    IMAGE is its name in `recipe history --images`, or as much of its end as only one has. The threshold is found again
    without it.
    """
    from orinspect_edge_runtime.recipe_edit import forget_image

    _print(forget_image(bundle, recipe, image, note=note), as_json)


@recipe.command()
@bundle_argument
@recipe_option
@click.option(
    "--false-alarm", type=float, help="Share of good images allowed above: a conformal threshold of that rate."
)
@defects_options
@note_option
@json_option
def threshold(
    bundle: Path,
    recipe: str | None,
    false_alarm: float | None,
    defects: Path | None,
    cost_missed: float | None,
    cost_false_alarm: float,
    defect_rate: float | None,
    note: str,
    as_json: bool,
) -> None:
    """Move a recipe's threshold without fitting again.

    \b
    Examples: orinspect recipe threshold BUNDLE --recipe bracket --false-alarm 0.02
              orinspect recipe threshold BUNDLE --recipe bracket --defects scratched/
              orinspect recipe threshold BUNDLE --recipe bracket --cost-missed 200 --defect-rate 0.005
    Costs alone weigh the defects that the recipe holds. Without an option the threshold is found again by the rule that the
    recipe has, after edits have changed scores.
    """
    from orinspect_edge_runtime.bundle import Bundle
    from orinspect_edge_runtime.dataset import defect_images
    from orinspect_edge_runtime.defect_threshold import Stakes, check_defects
    from orinspect_edge_runtime.threshold_edit import set_threshold

    weighed = any(map(is_given, ("cost_missed", "cost_false_alarm", "defect_rate")))
    stakes = Stakes(cost_missed, cost_false_alarm, defect_rate) if weighed else None
    opened = Bundle.open(bundle)
    images = [] if defects is None else defect_images(defects, list(map(Path, opened.recipe(recipe).images)))
    if defects is not None:
        check_defects(len(images))
    edit = set_threshold(opened, recipe, false_alarm=false_alarm, defects=images, stakes=stakes, note=note)
    _print(edit, as_json)


@recipe.command()
@bundle_argument
@recipe_option
@json_option
def undo(bundle: Path, recipe: str | None, as_json: bool) -> None:
    """Take back the last change; repeat it for the one before.

    \b
    Example:  orinspect recipe undo BUNDLE --recipe bracket
    """
    from orinspect_edge_runtime.recipe_edit import undo as take_back

    _print(take_back(bundle, recipe), as_json)


@recipe.command()
@bundle_argument
@click.argument("name")
def remove(bundle: Path, name: str) -> None:
    """Remove a recipe with its history. There is no undo.

    \b
    Example:  orinspect recipe remove BUNDLE bracket
    """
    from orinspect_edge_runtime.bundle import Bundle

    Bundle.open(bundle).remove_recipe(name)
    click.echo(f"recipe {name} removed")


@recipe.command()
@bundle_argument
@click.argument("name")
@click.argument("new_name")
def copy(bundle: Path, name: str, new_name: str) -> None:
    """Copy a recipe under another name, to try a change beside the one that runs.

    \b
    Example:  orinspect recipe copy BUNDLE bracket bracket-trial
    The copy has the history, but only edits made on it can be undone.
    """
    from orinspect_edge_runtime.recipe_edit import copy_recipe

    copy_recipe(bundle, name, new_name)
    click.echo(f"recipe {name} copied to {new_name}")


def _print(edit: Edit, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(vars(edit), indent=2))
    else:
        _tell(edit)


def _tell(edit: Edit) -> None:
    note = f" ({edit.note})" if edit.note else ""
    what = f"{edit.image}{note}".strip()
    click.echo(f"{edit.number}  {edit.at}  {edit.kind:6}  {what}{': ' if what else ''}{edit.message}")
