"""What each scorer can learn of one more image, and forget of one: its rows, on the scale that was fitted.

PaDiM and Mahalanobis hold sums over all images; taking part in those would change every score and the scale itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.bank_rule import in_space
from orinspect_edge_runtime.errors import CheckFailed, RecipeError
from orinspect_edge_runtime.features import Features, score_features
from orinspect_edge_runtime.memory_bank import MemoryBank
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_edge_runtime.scorers.knn import Knn

Arrays = dict[str, NDArray[Any]]


class Editor(Protocol):
    """Every method gives new arrays and leaves the old ones as they are. number: of an image in Recipe.images."""

    def add(self, arrays: Arrays, features: Features, group: int, number: int, reach: float) -> Arrays:
        """With what they lack of one image's features. reach: the raw distance that it should be brought within."""

    def forget(self, arrays: Arrays, number: int) -> Arrays:
        """Without the rows of an image. Raises RecipeError when a group would have none left."""

    def rows(self, arrays: Arrays) -> int:
        """How many rows there are."""


class BankEditor:
    """PatchCore: patches farther than `reach` enter the bank."""

    def add(self, arrays: Arrays, features: Features, group: int, number: int, reach: float) -> Arrays:
        patches = features.patches[0]
        places = np.flatnonzero(arrays.get("inspected", np.ones(len(patches), bool)))
        placed = in_space(arrays, patches[places])
        return arrays | MemoryBank.of(arrays).grown(placed, group, number, reach, places).arrays()

    def forget(self, arrays: Arrays, number: int) -> Arrays:
        return arrays | MemoryBank.of(arrays).without(number).arrays()

    def rows(self, arrays: Arrays) -> int:
        return int(arrays["bank"].shape[1])


class ReferenceEditor:
    """Nearest good images: the embedding itself enters, on the scale that was fitted."""

    def add(self, arrays: Arrays, features: Features, group: int, number: int, reach: float) -> Arrays:
        if arrays["reference_counts"][group] < Knn().neighbours:
            # The mean would be over one neighbour more, a farther one: scores would rise, and the promise be void.
            raise RecipeError(
                f"knn with fewer than {Knn().neighbours} good images of a kind cannot be taught one by one: fit again"
            )
        row = (features.embedding[0] - arrays["embedding_mean"][group]) * arrays["embedding_scale"][group]
        place = int(arrays["reference_counts"][: group + 1].sum())
        counts = arrays["reference_counts"].copy()
        counts[group] += 1
        return arrays | {
            "references": np.insert(arrays["references"], place, row, axis=0),
            "reference_origin": np.insert(_reference_origin(arrays), place, number),
            "reference_counts": counts,
        }

    def forget(self, arrays: Arrays, number: int) -> Arrays:
        kept = _reference_origin(arrays) != number
        owners = np.repeat(np.arange(len(arrays["reference_counts"])), arrays["reference_counts"])
        counts = np.bincount(owners[kept], minlength=len(arrays["reference_counts"])).astype(np.int32)
        if counts.min() == 0:
            raise RecipeError("a kind of good image would have no reference left: fit again without this image")
        return arrays | {
            "references": arrays["references"][kept],
            "reference_origin": arrays["reference_origin"][kept],
            "reference_counts": counts,
        }

    def rows(self, arrays: Arrays) -> int:
        return len(arrays["references"])


def _reference_origin(arrays: Arrays) -> NDArray[np.int32]:
    if "reference_origin" not in arrays:
        raise RecipeError("this recipe does not say which image its references came from; fit it again")
    return arrays["reference_origin"]


EDITORS: dict[str, Editor] = {"patchcore": BankEditor(), "knn": ReferenceEditor()}


def editor_of(recipe: Recipe) -> Editor:
    """The editor of a recipe's scorer. Raises RecipeError for one that cannot be edited."""
    if recipe.scorer not in EDITORS:
        raise RecipeError(
            f"recipe {recipe.name!r}: {recipe.scorer} holds means and covariances of all images together, not the images; "
            f"add the image to the folder, or take it out, and fit again (only {' and '.join(EDITORS)} can be edited)"
        )
    return EDITORS[recipe.scorer]


def taught(recipe: Recipe, features: Features, name: str) -> tuple[Recipe, float]:
    """The recipe with what it lacks of one more good image, features of one, and the image's score before.

    Enough of its patches enter that it scores no higher than a usual good one (0) and not above a threshold. Raises
    CheckFailed when its score is no number, RecipeError for a scorer that cannot be edited.
    """
    editor, number = editor_of(recipe), len(recipe.images)
    (before,), (group,) = score_features(SCORERS[recipe.scorer], recipe.arrays, features)
    if not np.isfinite(before):
        raise CheckFailed(f"{name}: {recipe.precision} gave no number as its score; use another precision")
    changed = editor.add(recipe.arrays, features, int(group), number, reach(recipe, int(group)))
    if "image_groups" in changed:
        changed = changed | {"image_groups": np.append(changed["image_groups"], group).astype(np.int32)}
    sizes = tuple(size + int(place == group) for place, size in enumerate(recipe.group_sizes))
    images, good = (*recipe.images, name), recipe.good_images + 1
    return replace(recipe, arrays=changed, images=images, good_images=good, group_sizes=sizes), float(before)


def reach(recipe: Recipe, group: int) -> float:
    """Raw distance of the score 0, or of the lowest threshold when that is lower; a trifle less for float32's sake."""
    lowest = recipe.threshold if recipe.review_threshold is None else min(recipe.threshold, recipe.review_threshold)
    offset, scale = float(recipe.arrays["score_offset"][group]), float(recipe.arrays["score_scale"][group])
    return (offset + min(0.0, lowest) / scale) * (1 - 1e-6)
