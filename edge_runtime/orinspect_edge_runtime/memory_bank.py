"""The memory bank as rows with their group and origin, to grow and to shrink: the other view of PatchCore's arrays.

A bank only grows by what it lacks. Growing goes on with the greedy k-centre selection that made it (coreset.py) on the
patches of the new image, until none of them is farther than `reach`. A row more can only bring patches nearer, so no
score rises; a row less can only let scores rise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import RecipeError
from orinspect_edge_runtime.scorers.patchcore import bank_columns

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]


@dataclass(frozen=True)
class MemoryBank:
    """rows: float32 [M, D], whitened. owners: int [M], the group of each. origin: int32 [M, 2], image and patch."""

    rows: Floats
    owners: NDArray[np.intp]
    origin: Integers
    groups: int

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> MemoryBank:
        """The bank of a recipe. Raises RecipeError when the rows' origin is not known."""
        bank, dim = arrays["bank"], len(arrays["patch_mean"])
        if "bank_origin" not in arrays:
            raise RecipeError("this recipe does not say which image its bank's rows came from; fit it again")
        rows = np.ascontiguousarray(bank[:dim].T)
        return cls(rows, bank[dim + 1 :].argmax(axis=0), arrays["bank_origin"], len(bank) - dim - 1)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """`bank` and `bank_origin`, as PatchCore fits them."""
        return {"bank": bank_columns(self.rows, self.owners, self.groups), "bank_origin": self.origin}

    def distances(self, patches: Floats, group: int) -> Floats:
        """Distance of whitened patches [P, D] to the nearest row of a group, float32 [P]."""
        return _distances(patches, self.rows[self.owners == group])

    def grown(
        self, patches: Floats, group: int, image: int, reach: float, places: NDArray[np.intp] | None = None
    ) -> MemoryBank:
        """With those whitened patches [P, D] of an image that it lacks, farthest first, after the group's own rows.

        places: the patches' numbers in the image, int [P]; None for 0, 1, 2, ...
        """
        nearest, picks = self.distances(patches, group), list[int]()
        while (farthest := int(nearest.argmax())) not in picks and nearest[farthest] > reach:
            picks.append(farthest)
            nearest = np.minimum(nearest, _distances(patches, patches[[farthest]]))
            nearest[picks] = 0
        place = int(np.searchsorted(self.owners, group, "right"))
        numbers = picks if places is None else places[picks]
        origin = np.array([(image, number) for number in numbers], np.int32).reshape(-1, 2)
        return MemoryBank(
            np.insert(self.rows, place, patches[picks], axis=0),
            np.insert(self.owners, place, np.full(len(picks), group)),
            np.insert(self.origin, place, origin, axis=0),
            self.groups,
        )

    def without(self, image: int) -> MemoryBank:
        """Without the rows of an image. Raises RecipeError when a group would have none left."""
        kept = self.origin[:, 0] != image
        lost = set(range(self.groups)) - set(self.owners[kept].tolist())
        if lost:
            raise RecipeError("a kind of good image would have no rows left: fit again without this image")
        return MemoryBank(self.rows[kept], self.owners[kept], self.origin[kept], self.groups)


def _distances(patches: Floats, rows: Floats) -> Floats:
    """Distance of each patch [P, D] to the nearest row [M, D]."""
    squared = np.einsum("md,md->m", rows, rows) - 2 * (patches @ rows.T)
    nearest = squared.min(axis=1) + np.einsum("pd,pd->p", patches, patches)
    distances: Floats = np.sqrt(np.maximum(nearest, 0))
    return distances
