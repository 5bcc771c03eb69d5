"""PaDiM (Defard et al. 2020, arXiv 2011.08785): one Gaussian of the patch features for each position and group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.gaussian import precision_factor
from orinspect_edge_runtime.groups import members

Floats = NDArray[np.float32]
# Positions whose covariances are held in float64 at a time: 3 matrices x 16 positions x 152 x 152 x 8 bytes = 9 MB.
POSITIONS = 16


@dataclass(frozen=True)
class Padim:
    """The distance of a patch is |(x - mean) @ factor|, a Mahalanobis distance; the image's score is the largest.

    shrinkage: share of a scaled identity in each covariance. pooling: with fewer images than dimensions a position's
    covariance is moreover drawn towards the mean one of all positions, up to this share of it as the images vanish.
    Memory: the arrays, 4 bytes x groups x P x D x (D + 1): 13 MB a group at 144 positions of 152; beside them a tenth
    of that, and two copies of the patches of POSITIONS positions.
    """

    shrinkage: float = 0.1
    pooling: float = 0.5
    name: ClassVar[str] = "padim"
    head: ClassVar[str] = "padim"
    has_map: ClassVar[bool] = True

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
        """`patch_means` float32 [G, P, D] and `patch_factors` float32 [G, P, D, D]. Nothing is drawn from the seed."""
        _, positions, dim = patches.shape
        means = np.empty((n_groups, positions, dim), np.float32)
        factors = np.empty((n_groups, positions, dim, dim), np.float32)
        for group in range(n_groups):
            rows = members(groups, group)
            weight = self.pooling * max(0.0, 1 - len(rows) / dim)
            pooled = _mean_covariance(patches, rows) if weight > 0 else 0.0
            for begin in range(0, positions, POSITIONS):
                place = slice(begin, begin + POSITIONS)
                means[group, place], covariance = _moments(patches[rows, place])
                factors[group, place] = precision_factor((1 - weight) * covariance + weight * pooled, self.shrinkage)
                if progress is not None:
                    progress((group + min(begin + POSITIONS, positions) / positions) / n_groups)
        return {"patch_means": means, "patch_factors": factors}

    def raw_scores(
        self, arrays: dict[str, NDArray[Any]], embeddings: Floats, patches: Floats, groups: NDArray[Any]
    ) -> tuple[Floats, Floats | None]:
        """Largest patch distance float32 [N], and all of them float32 [N, P]."""
        distances = np.empty(patches.shape[:2], np.float32)
        for group in np.unique(groups):
            rows = np.flatnonzero(np.asarray(groups) == group)
            means, factors = arrays["patch_means"][group], arrays["patch_factors"][group]
            for position in range(patches.shape[1]):
                whitened = (patches[rows, position] - means[position]) @ factors[position]
                distances[rows, position] = np.sqrt(np.einsum("nd,nd->n", whitened, whitened))
        return distances.max(axis=1), distances


def _moments(patches: Floats) -> tuple[Floats, Floats]:
    """Mean [P, D] and covariance [P, D, D] of patches [n, P, D]."""
    mean = patches.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = (patches - mean).transpose(1, 0, 2)
    covariance = centred.transpose(0, 2, 1) @ centred / np.float32(max(len(patches) - 1, 1))
    return mean, covariance


def _mean_covariance(patches: Floats, rows: NDArray[np.intp]) -> Floats:
    """Mean over the positions of the covariance at each, [D, D], of the patches [N, P, D] of some images."""
    positions, dim = patches.shape[1:]
    total = np.zeros((dim, dim), np.float32)
    for begin in range(0, positions, POSITIONS):
        total += _moments(patches[rows, begin : begin + POSITIONS])[1].sum(axis=0)
    return np.asarray(total / np.float32(positions))
