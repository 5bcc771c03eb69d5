"""The memory bank as rows with their group and origin, to grow and to shrink: the other view of PatchCore's arrays.

A bank only grows by what it lacks. Growing goes on with the greedy k-centre selection that made it (coreset.py) on the
patches of the new image, until none of them is farther than `reach`, or has entered. A row more can only bring patches
nearer, so no score rises; a row less can only let scores rise. The factor of a rule that reweights may do either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.bank_rule import GRAPHS_RULE, BankRule
from orinspect_edge_runtime.errors import RecipeError
from orinspect_edge_runtime.scorers.patchcore import bank_columns

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]


@dataclass(frozen=True)
class MemoryBank:
    """rows: float32 [M, D], in the space that the rule places patches in. owners: int [M], the group of each.

    origin: int32 [M, 2], image and patch.
    """

    rows: Floats
    owners: NDArray[np.intp]
    origin: Integers
    groups: int
    rule: BankRule = GRAPHS_RULE

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> MemoryBank:
        """The bank of a recipe. Raises RecipeError when the rows' origin is not known."""
        bank, dim = arrays["bank"], len(arrays["patch_mean"])
        if "bank_origin" not in arrays:
            raise RecipeError("this recipe does not say which image its bank's rows came from; fit it again")
        rows = np.ascontiguousarray(bank[:dim].T)
        owners, groups = bank[dim + 1 :].argmax(axis=0), len(bank) - dim - 1
        return cls(rows, owners, arrays["bank_origin"], groups, BankRule.of(arrays))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """`bank` and `bank_origin`, as PatchCore fits them."""
        return {"bank": bank_columns(self.rows, self.owners, self.groups), "bank_origin": self.origin}

    def grown(
        self, patches: Floats, group: int, image: int, reach: float, places: NDArray[np.intp] | None = None
    ) -> MemoryBank:
        """With those patches [P, D] of an image, placed, that it lacks, farthest first, after the group's own rows.

        places: the patches' numbers in the image, int [P]; None for 0, 1, 2, ... Raises RecipeError for fewer rows than the
        rule has neighbours.
        """
        own = self.rows[self.owners == group]
        if len(own) < self.rule.neighbours:
            # The mean would be over one row more, a farther one: scores would rise, and the promise be void.
            raise RecipeError(f"a bank of {len(own)} rows, fewer than its {self.rule.neighbours} neighbours: fit again")
        nearest, picks = self.rule.nearest(patches, own), list[int]()
        while (farthest := int(nearest.mean(axis=1).argmax())) not in picks and nearest[farthest].mean() > reach:
            picks.append(farthest)
            closer = np.concatenate([nearest, self.rule.nearest(patches, patches[[farthest]])], axis=1)
            nearest = np.sort(closer, axis=1)[:, : self.rule.neighbours]
            nearest[picks] = 0
        place = int(np.searchsorted(self.owners, group, "right"))
        numbers = picks if places is None else places[picks]
        origin = np.array([(image, number) for number in numbers], np.int32).reshape(-1, 2)
        return MemoryBank(
            np.insert(self.rows, place, patches[picks], axis=0),
            np.insert(self.owners, place, np.full(len(picks), group)),
            np.insert(self.origin, place, origin, axis=0),
            self.groups,
            self.rule,
        )

    def without(self, image: int) -> MemoryBank:
        """Without the rows of an image. Raises RecipeError when a group would have none left."""
        kept = self.origin[:, 0] != image
        lost = set(range(self.groups)) - set(self.owners[kept].tolist())
        if lost:
            raise RecipeError("a kind of good image would have no rows left: fit again without this image")
        return MemoryBank(self.rows[kept], self.owners[kept], self.origin[kept], self.groups, self.rule)
