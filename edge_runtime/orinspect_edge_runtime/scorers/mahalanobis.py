"""Mahalanobis distance of the image embedding from its group's good images (Lee et al. 2018, arXiv 1807.03888)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.gaussian import precision_factor_of
from orinspect_edge_runtime.groups import members, standardisation

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Mahalanobis:
    """One Gaussian of standardised embeddings a group. It judges the image as a whole and draws no map.

    shrinkage: share of the identity in the correlation matrix. Memory: 4 bytes x groups x E x (E + 1) (3.7 MB a group
    at 960), and up to four such matrices in float64 while fitting (30 MB).
    """

    shrinkage: float = 0.1
    name: ClassVar[str] = "mahalanobis"
    head: ClassVar[str] = "patchcore"
    has_map: ClassVar[bool] = False

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
        """`embedding_means` float32 [G, E] and `embedding_factors` float32 [G, E, E]. The seed is not used."""
        dim = embeddings.shape[1]
        means = np.empty((n_groups, dim), np.float32)
        factors = np.empty((n_groups, dim, dim), np.float32)
        for group in range(n_groups):
            values = embeddings[members(groups, group)].astype(np.float64)
            mean, scale = standardisation(values)
            means[group] = mean
            factors[group] = scale[:, None] * precision_factor_of((values - mean) * scale, self.shrinkage)
            if progress is not None:
                progress((group + 1) / n_groups)
        return {"embedding_means": means, "embedding_factors": factors}

    def raw_scores(
        self, arrays: dict[str, NDArray[Any]], embeddings: Floats, patches: Floats, groups: NDArray[Any]
    ) -> tuple[Floats, Floats | None]:
        """Distances float32 [N], and no map. `patches` are not looked at."""
        scores = np.empty(len(embeddings), np.float32)
        for group in np.unique(groups):
            rows = np.flatnonzero(np.asarray(groups) == group)
            whitened = (embeddings[rows] - arrays["embedding_means"][group]) @ arrays["embedding_factors"][group]
            scores[rows] = np.sqrt(np.einsum("ne,ne->n", whitened, whitened))
        return scores, None
