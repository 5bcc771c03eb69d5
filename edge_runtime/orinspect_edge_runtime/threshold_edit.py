"""Move a recipe's threshold without fitting again: another rate of false alarms, or a few defects that have turned up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.defect_threshold import Stakes
from orinspect_edge_runtime.detector import Detector, Image
from orinspect_edge_runtime.edit_log import Change, edited, opened, require_same_fit
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.features import Features
from orinspect_edge_runtime.recipe import Edit, Recipe
from orinspect_edge_runtime.recipe_threshold import by_defects, found_again, with_defects
from orinspect_edge_runtime.threshold import check_false_alarm


def set_threshold(
    bundle: Bundle | Path | str,
    recipe: str | None = None,
    *,
    false_alarm: float | None = None,
    defects: Sequence[Image] = (),
    stakes: Stakes | None = None,
    note: str = "",
) -> Edit:
    """Find a recipe's threshold anew, as an edit that `undo` takes back. The good images are not needed.

    false_alarm: for a conformal threshold of that rate. defects: images to find it by, in place of those that the recipe
    may hold; stakes: what to weigh, None for what the recipe weighed, or F1. None of the three: by the recipe's own rule,
    on the scores as edits have left them. Raises InputError for a rate together with the others, for stakes of a recipe
    without defects, and for a rate that is not below the review band's.
    """
    if false_alarm is not None and (defects or stakes is not None):
        raise InputError("a rate of false alarms and defects both say where the threshold lies: give one of them")
    now = opened(bundle)
    names, features, fitted = tuple[str, ...](), None, None
    if defects:
        with Detector.load(now, recipe) as detector:
            now, recipe, fitted = detector.bundle, detector.recipe.name, detector.recipe
            names, features = _features(detector, defects)

    def change(old: Recipe) -> tuple[Recipe, Change]:
        if features is not None and fitted is not None:
            require_same_fit(old, fitted)
            new = by_defects(with_defects(old, names, features), stakes or old.stakes or Stakes())
        elif false_alarm is not None:
            new = found_again(_at_rate(old, false_alarm))
        else:
            new = found_again(old) if stakes is None else by_defects(_having_defects(old), stakes)
        return new, Change("", 0, 0, f"threshold {old.threshold:.3f} -> {new.threshold:.3f}: {new.false_alarm_note}")

    return edited(now, recipe, "threshold", change, note)


def _features(detector: Detector, images: Sequence[Image]) -> tuple[tuple[str, ...], Features]:
    """Names and features of some images, through the graph of the recipe in use."""
    frames = (detector.frame(image) for image in images)
    found = [(frame.source, detector.features(frame)) for frame in frames]
    embedding, patches = (np.concatenate([getattr(f, name) for _, f in found]) for name in ("embedding", "patches"))
    return tuple(name for name, _ in found), Features(embedding, patches)


def _at_rate(recipe: Recipe, false_alarm: float) -> Recipe:
    check_false_alarm(false_alarm)
    if recipe.review_alarm is not None and false_alarm >= recipe.review_alarm:
        raise InputError(f"--false-alarm {false_alarm}: must be below the review band's share {recipe.review_alarm}")
    return replace(recipe, false_alarm=false_alarm, stakes=None, threshold_rule="conformal")


def _having_defects(recipe: Recipe) -> Recipe:
    if not recipe.defects:
        raise InputError(f"recipe {recipe.name!r} holds no defects to weigh: give some with --defects FOLDER")
    return recipe
