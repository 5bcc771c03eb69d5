"""PaDiM and the Mahalanobis distance of the embedding in one score: how odd the oddest place is, and how odd the whole.

Both are distances from Gaussians of the same good images (padim.py, mahalanobis.py). Over unseen good images of a group the
second, less its mean, is weighed to vary as the first does. Adaptation of a pretrained encoder betters the embedding and
leaves the patches as they were: a sum is how a recipe with a map gains by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.gaussian import left_out
from orinspect_edge_runtime.groups import members
from orinspect_edge_runtime.scorers.mahalanobis import Mahalanobis
from orinspect_edge_runtime.scorers.padim import Padim

Floats = NDArray[np.float32]
# Fewer distances than this say little of how they vary: it is then taken to be this share of their mean.
FEWEST_FOR_SPREAD, USUAL_SPREAD = 10, 0.1
# How the largest distance by place varies is asked of every fifth place (few grids have columns in fives), or of more.
EVERY, FEWEST_PLACES = 5, 25


@dataclass(frozen=True)
class PadimMahalanobis:
    """The graph's head gives padim's score and map. What the embedding's distance is above its mean is added to the score.

    The map has none of it: it is padim's, in standard deviations of padim's score alone. rank, changes: of padim. Memory:
    that of both scorers.
    """

    rank: int | None = None
    changes: Floats | None = field(default=None, compare=False)
    name: ClassVar[str] = "padim_mahalanobis"
    head: ClassVar[str] = "padim"
    has_map: ClassVar[bool] = True
    whole: ClassVar[Mahalanobis] = Mahalanobis()

    @property
    def places(self) -> Padim:
        """The scorer of the places."""
        return Padim(self.rank, changes=self.changes)

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
        """The arrays of both, the factors of the whole weighed; `embedding_usual` and `patch_spread`, float32 [G]: over
        unseen good images the mean of its weighed distances, and how the largest patch distance varies.

        The seed draws padim's projection.
        """
        arrays = self.places.fit(embeddings, patches, groups, n_groups, seed=seed, progress=progress)
        arrays |= self.whole.fit(embeddings, patches, groups, n_groups)
        usual, spreads = np.zeros(n_groups, np.float32), np.zeros(n_groups, np.float32)
        for group in range(n_groups):
            rows = members(groups, group)
            by_place = self._unseen_by_place(patches[rows], seed)
            by_whole = self._unseen_by_whole(arrays, embeddings[rows], group)
            spreads[group], whole = _spread(by_place), _spread(by_whole)
            weight = spreads[group] / whole if min(spreads[group], whole) > 0 else np.float32(1)
            arrays["embedding_factors"][group] *= weight
            usual[group] = weight * by_whole.mean()
        return arrays | {"embedding_usual": usual, "patch_spread": spreads}

    def _unseen_by_place(self, patches: Floats, seed: int) -> Floats:
        """Largest distance, over some of the places, of the good images of a group, by models of the other half, [n]."""
        step = min(EVERY, max(1, patches.shape[1] // FEWEST_PLACES))
        some, none = np.ascontiguousarray(patches[:, ::step]), np.empty((len(patches), 0), np.float32)
        half, found = np.arange(len(some)) % 2, np.zeros(len(some), np.float32)
        for own in np.unique(half):
            seen, held = half != own if len(some) > 1 else half == own, half == own
            arrays = self.places.fit(none[seen], some[seen], np.zeros(seen.sum(), int), 1, seed=seed)
            found[held], _ = self.places.raw_scores(arrays, none[held], some[held], np.zeros(held.sum(), int))
        return found

    def _unseen_by_whole(self, arrays: dict[str, NDArray[Any]], embeddings: Floats, group: int) -> NDArray[np.float64]:
        """Distances of the embeddings of all good images of a group, each as if the arrays were fitted without it, [n]."""
        count = len(embeddings)
        distances, _ = self.whole.raw_scores(arrays, embeddings, embeddings, np.full(count, group))
        return left_out(distances, count, 1 - self.whole.shrinkage)

    def raw_scores(
        self, arrays: dict[str, NDArray[Any]], embeddings: Floats, patches: Floats, groups: NDArray[Any]
    ) -> tuple[Floats, Floats | None]:
        """The sum float32 [N], and padim's patch distances float32 [N, P]."""
        largest, distances = self.places.raw_scores(arrays, embeddings, patches, groups)
        return largest + self.added(arrays, embeddings, groups), distances

    def added(self, arrays: dict[str, NDArray[Any]], embeddings: Floats, groups: NDArray[Any]) -> Floats:
        """What the embedding adds to padim's score, float32 [N]: 0 on average over good images."""
        distances, _ = self.whole.raw_scores(arrays, embeddings, embeddings, groups)
        return np.asarray(distances - arrays["embedding_usual"][groups], np.float32)

    def map_factor(self, arrays: dict[str, NDArray[Any]], groups: NDArray[Any]) -> Floats:
        """What the graph's map is to be multiplied by, float32 [N]: its scale is that of the sum."""
        spreads = arrays["patch_spread"][groups] * arrays["score_scale"][groups]
        return np.asarray(1 / np.where(spreads > 0, spreads, 1), np.float32)


def _spread(values: NDArray[Any]) -> float:
    return float(values.std() if len(values) >= FEWEST_FOR_SPREAD else USUAL_SPREAD * values.mean())
