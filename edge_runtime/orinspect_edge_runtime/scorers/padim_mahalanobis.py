"""PaDiM and the Mahalanobis distance of the embedding in one score: how odd the oddest place is, and how odd the whole.

Both are distances from Gaussians of the same good images (padim.py, mahalanobis.py). Their sum is taken with the second
weighed so that over unseen good images of a group both vary alike. Adaptation of a pretrained encoder betters the embedding
and leaves the patches as they were: a sum is how a recipe with a map gains by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.gaussian import left_out
from orinspect_edge_runtime.groups import members
from orinspect_edge_runtime.scorers.mahalanobis import Mahalanobis
from orinspect_edge_runtime.scorers.padim import Padim

Floats = NDArray[np.float32]
# Fewer distances than this say little of how they vary; those of the whole then count as much as the largest by place.
FEWEST_FOR_SPREAD = 4


@dataclass(frozen=True)
class PadimMahalanobis:
    """The graph's head gives padim's score and map; the embedding's distance is added to both (`beside`).

    Arrays are those of both scorers; `embedding_factors` hold the weight. Memory: that of both.
    """

    name: ClassVar[str] = "padim_mahalanobis"
    head: ClassVar[str] = "padim"
    has_map: ClassVar[bool] = True
    places: ClassVar[Padim] = Padim()
    beside: ClassVar[Mahalanobis] = Mahalanobis()

    def fit(
        self,
        embeddings: Floats,
        patches: Floats,
        groups: NDArray[Any],
        n_groups: int,
        *,
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """The arrays of Padim and of Mahalanobis. The seed draws padim's projection."""
        arrays = self.places.fit(embeddings, patches, groups, n_groups, seed=seed, progress=progress)
        arrays |= self.beside.fit(embeddings, patches, groups, n_groups)
        for group in range(n_groups):
            rows = members(groups, group)
            own = embeddings[rows], patches[rows], np.full(len(rows), group)
            arrays["embedding_factors"][group] *= self._weight(arrays, *own)
        return arrays

    def _weight(
        self, arrays: dict[str, NDArray[Any]], embeddings: Floats, patches: Floats, groups: NDArray[Any]
    ) -> float:
        """Of the distances of the whole, from the good images of one group that the arrays were fitted on."""
        count = len(groups)
        largest, _ = self.places.raw_scores(arrays, embeddings, patches, groups)
        whole, _ = self.beside.raw_scores(arrays, embeddings, patches, groups)
        unseen = [
            left_out(largest, count, self.places.own_share(count, arrays["patch_means"].shape[2])),
            left_out(whole, count, 1 - self.beside.shrinkage),
        ]
        by_place, by_whole = (float(values.std() if count >= FEWEST_FOR_SPREAD else values.mean()) for values in unseen)
        return by_place / by_whole if by_place > 0 and by_whole > 0 else 1.0

    def raw_scores(
        self, arrays: dict[str, NDArray[Any]], embeddings: Floats, patches: Floats, groups: NDArray[Any]
    ) -> tuple[Floats, Floats | None]:
        """Sum of the largest patch distance and the embedding's, float32 [N]; the same sum by patch, float32 [N, P]."""
        _, distances = self.places.raw_scores(arrays, embeddings, patches, groups)
        whole, _ = self.beside.raw_scores(arrays, embeddings, patches, groups)
        sums = np.asarray(distances) + whole[:, None]
        return sums.max(axis=1), sums
