"""A recipe's thresholds, found from the scores that it holds: at the fit, after an edit, by another rule, by a few defects.

A recipe keeps what is needed to score its defects again after an edit: their embeddings, and of each the KEPT_PATCHES
patches farthest from the good ones. More rows in a memory bank bring patches nearer, so a score found on these alone is
exact until all of them have come nearer than one that was not kept, and never too high.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.defect_threshold import DefectThreshold, Stakes, defect_threshold
from orinspect_edge_runtime.editors import EDITORS
from orinspect_edge_runtime.errors import CheckFailed
from orinspect_edge_runtime.features import Features, assign_groups, score_features
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_edge_runtime.threshold import THRESHOLDS, Threshold

# Calibration scores are cross-fitted in so many parts.
FOLDS = 5
KEPT_PATCHES = 16
Floats = NDArray[np.float32]


def calibrated(scores: Floats, false_alarm: float, rule: str = "conformal") -> Threshold:
    """The threshold of a recipe on its cross-fitted scores [n]; its note says what that leaves uncertain.

    rule: one of THRESHOLDS.
    """
    threshold = THRESHOLDS[rule](scores, false_alarm)
    how = f"cross-fitted in {FOLDS} parts" if len(scores) > FOLDS else "each image judged by the others"
    return replace(threshold, note=f"{threshold.note}; {how}, so approximate")


def found_again(recipe: Recipe) -> Recipe:
    """The recipe with the thresholds that its rule finds on the scores that it holds now."""
    scores, asked = recipe.calibration_scores, recipe.review_alarm
    # Defects say where to reject; whom a person should look at stays a share of the good images.
    rule = recipe.threshold_rule if recipe.stakes is None else "conformal"
    found = calibrated(scores, recipe.false_alarm, rule) if recipe.stakes is None else expected(recipe)
    review = None if asked is None else calibrated(scores, asked, rule).value
    return replace(recipe, threshold=found.value, false_alarm_note=found.note, review_threshold=review)


def expected(recipe: Recipe, stakes: Stakes | None = None) -> DefectThreshold:
    """What its defects' scores say by other stakes or its own. Raises InputError for fewer than two defects."""
    chosen = stakes or recipe.stakes or Stakes()
    return defect_threshold(recipe.calibration_scores, recipe.defect_scores, chosen, seed=recipe.seed)


def by_defects(recipe: Recipe, stakes: Stakes) -> Recipe:
    """The recipe with its threshold found by the defects that it holds."""
    return found_again(replace(recipe, stakes=stakes, threshold_rule=stakes.rule))


def with_defects(recipe: Recipe, names: tuple[str, ...], features: Features) -> Recipe:
    """The recipe holding these defects in place of others, features of m images; its threshold stays.

    Raises CheckFailed when a score is no number.
    """
    scores, _ = score_features(SCORERS[recipe.scorer], recipe.arrays, features)
    if not np.isfinite(scores).all():
        name = names[int(np.isfinite(scores).argmin())]
        raise CheckFailed(f"{name}: {recipe.precision} gave no number as its score; use another precision")
    kept = _kept(recipe, features) if recipe.scorer in EDITORS else {}
    return replace(recipe, arrays=recipe.arrays | kept, defects=names, defect_scores=scores.astype(np.float32))


def rescored(recipe: Recipe) -> Recipe:
    """The recipe with its defects scored again by its arrays as they are now, after an edit."""
    if "defect_embedding" not in recipe.arrays:
        return recipe
    arrays = _of_all_patches(recipe)
    features = Features(arrays["defect_embedding"], arrays["defect_patches"])
    scores, _ = score_features(SCORERS[recipe.scorer], arrays, features)
    return replace(recipe, defect_scores=scores.astype(np.float32))


def passing_defects(recipe: Recipe) -> tuple[str, ...]:
    """Names of the recipe's defects that do not alarm."""
    # As Python's floats: a threshold between two float32 neighbours would be rounded to one of them.
    scores = recipe.defect_scores.tolist()
    return tuple(name for name, score in zip(recipe.defects, scores, strict=True) if score <= recipe.threshold)


def _kept(recipe: Recipe, features: Features) -> dict[str, NDArray[Any]]:
    """`defect_embedding` float32 [m, E] and `defect_patches` [m, KEPT_PATCHES, D], none for scorers without a map."""
    scorer = SCORERS[recipe.scorer]
    if not scorer.has_map:
        return {"defect_embedding": features.embedding, "defect_patches": features.patches[:, :0]}
    counted = np.flatnonzero(recipe.arrays.get("inspected", np.ones(features.patches.shape[1], bool)))
    patches, groups = features.patches[:, counted], assign_groups(recipe.arrays, features.embedding)
    _, distances = scorer.raw_scores(_of_all_patches(recipe), features.embedding, patches, groups)
    farthest = np.argsort(-np.asarray(distances), axis=1, kind="stable")[:, :KEPT_PATCHES, None]
    return {"defect_embedding": features.embedding, "defect_patches": np.take_along_axis(patches, farthest, axis=1)}


def _of_all_patches(recipe: Recipe) -> dict[str, NDArray[Any]]:
    """Its arrays for patches among which only those that count are left."""
    return {name: array for name, array in recipe.arrays.items() if name != "inspected"}
