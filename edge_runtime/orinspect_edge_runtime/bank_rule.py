"""How far an image is from a memory bank: what PatchCore leaves to choose beside the projection of its patches.

The graph's own rule is the distance to the nearest row, and the largest of an image's patches is its score. A recipe with
another rule is searched on the host, from the patches that the graph gives (backends/searching.py), on every backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import InputError, RecipeError
from orinspect_edge_runtime.patch_search import flat_nearest, squares
from orinspect_edge_runtime.whitening import Whitening

DISTANCES = ("l2", "cosine")
# The array of a recipe that says it, int32 [3]; a recipe of the graph's own rule has none.
RULE = "bank_rule"
# Arrays of a recipe that no graph takes and a search on the host obeys.
HOST_ARRAYS = (RULE, "inspected")
Floats = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class BankRule:
    """neighbours: a patch's distance is the mean of those to its so many nearest rows (to all, where there are fewer).

    reweight: an image's distances are multiplied by 1 - exp(s) / sum exp(d), where s is the distance of its farthest patch
    to the nearest row, and d are its distances to the so many rows nearest to that row, itself among them (Roth et al. 2022,
    eq. 7); 0 to leave them. The factor lies between 1 - 1 / reweight and 1, and is 1 where there is but one row.
    distance: `l2`, or `cosine`: 1 - cos, which is half the square of l2 between patches scaled to length 1; one of length 0
    stays as it is. Raises InputError for anything else, and for neighbours together with reweight.
    """

    neighbours: int = 1
    reweight: int = 0
    distance: str = "l2"

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise InputError(f"--neighbours {self.neighbours}: 1 row or more")
        if self.reweight < 0 or self.reweight == 1:
            raise InputError(f"--reweight {self.reweight}: 2 rows or more, 9 are usual; 0 for none")
        if self.neighbours > 1 and self.reweight:
            raise InputError("--reweight weighs the distance to the one nearest row: leave --neighbours away")
        if self.distance not in DISTANCES:
            raise InputError(f"--distance {self.distance} is not known: use one of {', '.join(DISTANCES)}")

    @classmethod
    def of(cls, arrays: Arrays) -> BankRule:
        """The rule of a recipe's arrays. Raises RecipeError for one that is not known here."""
        if RULE not in arrays:
            return cls()
        try:
            neighbours, reweight, distance = map(int, arrays[RULE])
            return cls(neighbours, reweight, dict(enumerate(DISTANCES))[distance])
        except (ValueError, TypeError, KeyError, InputError) as error:
            raise RecipeError("the recipe measures distances in a way not known here: upgrade orinspect") from error

    def arrays(self) -> dict[str, NDArray[np.int32]]:
        """The rule as an entry of a recipe's arrays."""
        if self.in_graph:
            return {}
        return {RULE: np.array([self.neighbours, self.reweight, DISTANCES.index(self.distance)], np.int32)}

    @property
    def in_graph(self) -> bool:
        """Whether it is the rule of the graph's head."""
        return self == GRAPHS_RULE

    def placed(self, patches: Floats) -> Floats:
        """Projected patches [..., D] in the space of the bank's rows."""
        if self.distance == "l2":
            return patches
        lengths = np.sqrt(np.einsum("...d,...d->...", patches, patches, dtype=np.float64))[..., None]
        return np.asarray(patches / np.where(lengths > 0, lengths, 1), np.float32)

    def measured(self, l2: Floats) -> Floats:
        """Distances out of those of l2 in that space."""
        return l2 if self.distance == "l2" else np.asarray(l2 * l2 / 2, np.float32)

    def nearest(self, patches: Floats, rows: Floats) -> Floats:
        """Distances float32 [P, k] of patches [P, D] to their nearest rows of [M, D], k of them or M, nearest first."""
        squared, _ = flat_nearest(patches, rows, min(self.neighbours, len(rows)))
        return self.measured(np.sqrt(squared))

    def factor(self, farthest: Floats, rows: Floats) -> float:
        """What the distances of an image with that farthest patch [D] are multiplied by; rows: float32 [M, D]."""
        if not self.reweight or len(rows) == 1:
            return 1.0
        nearest = flat_nearest(farthest[None], rows, 1)[1][0]
        around = flat_nearest(rows[nearest], rows, min(self.reweight, len(rows)))[1][0]
        away = self.measured(np.sqrt(squares(rows[np.append(nearest, around)] - farthest)))
        exponentials = np.exp(away.astype(np.float64) - away.max())
        return float(1 - exponentials[0] / exponentials[1:].sum())


GRAPHS_RULE = BankRule()


def in_space(arrays: Arrays, patches: Floats) -> Floats:
    """Patches [..., D] as a graph gives them, in the space of the rows of a recipe's bank."""
    whitening = Whitening(arrays["patch_mean"], arrays["patch_projection"])
    return BankRule.of(arrays).placed(whitening(patches))
