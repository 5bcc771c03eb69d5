"""Everyday changes of a recipe: teach it a good image or a false alarm, let it forget an image, take that back.

No engine is rebuilt: memory banks are inputs of the graph. Every change is published by the one rename that replaces
the manifest, holds the bundle's lock from reading to writing, and keeps the recipe's earlier file for undo; the log of
all changes is in the recipe itself.

What becomes of the promised rate of false alarms: adding rows can only bring patches nearer, so no score rises and the
threshold keeps its promise as it stands (but for a rule that reweights: the edit's message says so). A marked image does
not join the calibration scores, because it was picked for its score. A forgotten image's own calibration score goes, and
the threshold is found again on the others. Defects that a recipe holds are scored again, and the edit's message says
which of them no longer alarm.
"""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path, PurePath

from orinspect_edge_runtime import recipe as recipes
from orinspect_edge_runtime.bank_rule import BankRule
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.detector import Detector, Image
from orinspect_edge_runtime.edit_log import Change, edited, logged, opened, require_same_fit
from orinspect_edge_runtime.editors import editor_of, taught
from orinspect_edge_runtime.errors import InputError, RecipeError
from orinspect_edge_runtime.features import Features, score_features
from orinspect_edge_runtime.recipe import Edit, Recipe
from orinspect_edge_runtime.recipe_threshold import found_again, passing_defects, rescored
from orinspect_edge_runtime.scorers import SCORERS


def mark_good(
    bundle: Bundle | Path | str, recipe: str | None, image: Image, *, note: str = "", detector: Detector | None = None
) -> Edit:
    """Teach a recipe one more good image, or that its alarm was false: what it lacks of the image enters the recipe.

    Enough of its patches enter that the image scores no higher than a usual good one (0) and not above the threshold;
    the edit's message says so when that could not be reached. detector: one that has this recipe in use, to save
    opening the graph again; call its `refresh` afterwards. Raises RecipeError for a scorer that cannot be taught.
    """
    if detector is not None:
        return _mark(detector.bundle, detector, image, note)
    now = opened(bundle)
    with Detector.load(now, recipe) as own:
        return _mark(now, own, image, note)


def _mark(bundle: Bundle, detector: Detector, image: Image, note: str) -> Edit:
    editor_of(detector.recipe)
    frame, seen = detector.frame(image), detector.recipe
    features = detector.features(frame)

    def change(recipe: Recipe) -> tuple[Recipe, Change]:
        require_same_fit(recipe, seen)
        return _with_image(recipe, features, _free_name(frame.source, recipe.images))

    return edited(bundle, seen.name, "add", change, note)


def forget_image(bundle: Bundle | Path | str, recipe: str | None, image: str, *, note: str = "") -> Edit:
    """Let a recipe forget an image: every row that came from it, and its calibration score.

    image: its name in Recipe.images, or a part of the path from its end that only one has. Whitening, groups, scale of
    the scores and the drift monitor's reference stay as they were fitted. Raises InputError naming the nearest images
    when there is none of that name.
    """
    return edited(opened(bundle), recipe, "forget", lambda now: _without_image(now, find_image(now, image)), note)


def undo(bundle: Bundle | Path | str, recipe: str | None = None) -> Edit:
    """Take back the last edit that stands: the recipe's arrays and threshold are those of before, to the byte.

    Raises RecipeError when there is none, or it is older than what the bundle keeps.
    """
    taken: list[Edit] = []

    def change(now: Bundle, recipe: Recipe, file: str) -> Recipe:
        standing = recipes.in_force(recipe.edits)
        if not standing:
            raise RecipeError(f"recipe {recipe.name!r} has no edit to undo")
        last = standing[-1]
        if last.before not in now.manifest.files:
            raise RecipeError(
                f"edit {last.number} of recipe {recipe.name!r} cannot be undone: the version before it is not kept"
            )
        old = recipes.from_bytes(now.read(last.before), last.before)
        done = Change(
            last.image, last.rows_removed, last.rows_added, f"edit {last.number} ({last.kind}) was taken back"
        )
        taken.append(logged(recipe, old, "undo", done, "", file))
        return dataclasses.replace(old, edits=(*recipe.edits, taken[0]))

    opened(bundle).change_recipe(recipe, change)
    return taken[0]


def history(bundle: Bundle | Path | str, recipe: str | None = None) -> tuple[Edit, ...]:
    """Every edit since the recipe was fitted, oldest first, those that were taken back and the undos included."""
    return opened(bundle).recipe(recipe).edits


def copy_recipe(bundle: Bundle | Path | str, name: str, new_name: str) -> Bundle:
    """Store a recipe under a second name. The log goes with it, but only edits made on the copy can be undone.

    Raises RecipeError when the new name is taken.
    """
    now = opened(bundle)
    old = now.recipe(name)
    edits = tuple(dataclasses.replace(edit, before="") for edit in old.edits)
    return now.add_recipe(dataclasses.replace(old, name=new_name, edits=edits), replace=False)


def find_image(recipe: Recipe, image: str) -> int:
    """Number of an image by its name, or by the end of its path. Raises InputError naming the nearest ones."""
    wanted = PurePath(image).parts
    exact = [n for n, name in enumerate(recipe.images) if name == image and name]
    found = exact or [
        n for n, name in enumerate(recipe.images) if name and PurePath(name).parts[-len(wanted) :] == wanted
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(recipe.images[number] for number in found[:3])
        raise InputError(
            f"{image}: {len(found)} images of recipe {recipe.name!r} end so ({names}); give more of the path"
        )
    near = difflib.get_close_matches(image, [name for name in recipe.images if name], n=3, cutoff=0.4)
    hint = f"; near: {', '.join(near)}" if near else ""
    raise InputError(f"{image}: recipe {recipe.name!r} holds no such image{hint}")


def _with_image(recipe: Recipe, features: Features, name: str) -> tuple[Recipe, Change]:
    new, before = taught(recipe, features, name)
    new = rescored(new)
    (after,), _ = score_features(SCORERS[recipe.scorer], new.arrays, features)
    rows = editor_of(recipe).rows(new.arrays) - editor_of(recipe).rows(recipe.arrays)
    message = f"{rows} rows entered; its score went from {before:.3f} to {after:.3f}, threshold {recipe.threshold:.3f}"
    if after > recipe.threshold:
        message += ": it still alarms, because this recipe averages over several neighbours; mark more images like it"
    if rows and BankRule.of(new.arrays).reweight:
        message += "; with --reweight a row more can raise other scores: the promised rate is no longer certain"
    return new, Change(name, rows, 0, message + _defects_told(recipe, new), (before, float(after)))


def _defects_told(old: Recipe, new: Recipe) -> str:
    """What an edit means for the defects that a recipe holds, as the end of its message."""
    if not new.defects:
        return ""
    passing = passing_defects(new)
    lost = [name for name in passing if name not in passing_defects(old)]
    count = f"; {len(new.defects) - len(passing)} of its {len(new.defects)} defects alarm"
    return count + (f", no longer {', '.join(lost[:3])}: undo, or `recipe threshold` to weigh anew" if lost else "")


def _without_image(recipe: Recipe, number: int) -> tuple[Recipe, Change]:
    name = recipe.images[number]
    changed = editor_of(recipe).forget(recipe.arrays, number)
    rows = editor_of(recipe).rows(recipe.arrays) - editor_of(recipe).rows(changed)
    known = recipe.calibration_images == number
    new = dataclasses.replace(
        recipe,
        arrays=changed,
        images=tuple("" if place == number else image for place, image in enumerate(recipe.images)),
        good_images=recipe.good_images - 1,
    )
    message = f"{rows} rows left"
    if (groups := recipe.arrays.get("image_groups")) is not None:
        sizes = tuple(size - int(place == groups[number]) for place, size in enumerate(recipe.group_sizes))
        new = dataclasses.replace(new, group_sizes=sizes)
    new = rescored(new)
    if known.any():
        new = found_again(
            dataclasses.replace(
                new,
                calibration_scores=recipe.calibration_scores[~known],
                calibration_images=recipe.calibration_images[~known],
            )
        )
        message += f"; its score left the calibration: threshold {recipe.threshold:.3f} -> {new.threshold:.3f}"
    elif not len(recipe.calibration_images) and name not in {e.image for e in recipe.edits if e.kind == "add"}:
        message += "; which calibration score is its own was not stored, so the threshold stays: fit again to be exact"
    return new, Change(name, 0, rows, message + _defects_told(recipe, new))


def _free_name(source: str, taken: tuple[str, ...]) -> str:
    """The source, with a number when an image of that name is there already (a camera's frames share a name)."""
    number = 1
    name = source
    while name in taken:
        number += 1
        name = f"{source} #{number}"
    return name
