"""PaDiM (Defard et al. 2020, arXiv 2011.08785): one Gaussian of the patch features for each position and group.

Patches of many dimensions are first projected onto fewer by a random matrix with orthonormal columns (Kim et al. 2021,
arXiv 2105.14737), which keeps more of the distances than a random choice of dimensions does. A rank makes the covariances
low-rank ones: what differs at a place along its few main directions, and the same variance along all others.

With what drawn defects change in a patch (drawn_defects.py) a distance is a ratio of likelihoods instead: how much likelier
a patch is as a good one that something was drawn on than as a good one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.gaussian import likelihood_factor, low_rank_precision, precision_factor
from orinspect_edge_runtime.groups import members
from orinspect_edge_runtime.heads import projected_dim
from orinspect_edge_runtime.in_order import in_order
from orinspect_edge_runtime.manifest import TensorSpec

Floats = NDArray[np.float32]
# Positions whose covariances are held in float64 at a time: 3 matrices x 16 positions x 152 x 152 x 8 bytes = 9 MB.
POSITIONS = 16
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Padim:
    """A patch's distance is a Mahalanobis one of its projection (heads.py); the image's score is the largest.

    shrinkage: share of a scaled identity in each covariance. pooling: with fewer images than dimensions a position's
    covariance is moreover drawn towards the mean one of all positions, up to this share of it as the images vanish.
    rank: columns of the factors, 1 to R - 1; None for full covariances, whose factors have R. With so few images that a
    covariance has no more eigenvalues of its own (n - 1), a low-rank one of the same pooling is the full one.
    changes: float [D, D], see drawn_defects.py, for ratios of likelihoods; a rank then keeps the directions that drawn
    defects change most. None for Mahalanobis distances.
    Memory: the arrays, 4 bytes x groups x P x (R + 1) x columns: 13 MB a group at 144 positions of 152 dimensions, 1.5 MB
    at rank 16; beside them 9 MB a core, two copies of the patches of POSITIONS positions, and the projected patches if
    R < D.
    """

    rank: int | None = None
    shrinkage: float = 0.1
    pooling: float = 0.5
    changes: Floats | None = field(default=None, compare=False)
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
        """`patch_projection` float32 [D, R], `patch_means` [G, P, R], `patch_factors` [G, P, R, columns] and
        `patch_scales` [G, P]; with `changes` their root too, `patch_changes` [R, columns].

        The seed draws the projection, unless R = D: it is then the identity. Raises InputError for a rank beyond R - 1.
        """
        projection = _projection(patches.shape[2], seed)
        patches = _projected(patches, projection)
        _, positions, dim = patches.shape
        changes = None if self.changes is None else _root(projection.T @ self.changes @ projection, self.rank or dim)
        means = np.empty((n_groups, positions, dim), np.float32)
        factors = np.empty((n_groups, positions, dim, _columns(self.rank, dim)), np.float32)
        scales = np.empty((n_groups, positions), np.float32)
        for group in range(n_groups):
            for place, *gaussian in self._gaussians(patches, members(groups, group), changes):
                means[group, place], factors[group, place], scales[group, place] = gaussian
                if progress is not None:
                    progress((group + min(place.stop, positions) / positions) / n_groups)
        arrays = {
            "patch_projection": projection,
            "patch_means": means,
            "patch_factors": factors,
            "patch_scales": scales,
        }
        return arrays if changes is None else arrays | {"patch_changes": changes}

    def _gaussians(
        self, patches: Floats, rows: NDArray[np.intp], changes: Floats | None
    ) -> Iterator[tuple[slice, Floats, Floats, Floats]]:
        """Means [p, R], factors [p, R, columns] and scales [p] of POSITIONS positions after the other, of some images."""
        _, positions, dim = patches.shape
        weight = self.pooling * max(0.0, 1 - len(rows) / dim)
        pooled = _mean_covariance(patches, rows) if weight > 0 else 0.0

        def fit(place: slice) -> tuple[Floats, Floats, Floats]:
            mean, covariance = _moments(patches[rows, place])
            covariance = (1 - weight) * covariance + weight * pooled
            if changes is not None:
                return mean, likelihood_factor(covariance, self.shrinkage, changes), np.zeros(len(mean), np.float32)
            if self.rank is None:
                return mean, precision_factor(covariance, self.shrinkage), np.zeros(len(mean), np.float32)
            scale, factor = low_rank_precision(covariance, self.shrinkage, self.rank)
            return mean, factor, scale

        places = (slice(begin, begin + POSITIONS) for begin in range(0, positions, POSITIONS))
        for place, fitted in in_order(fit, places, threads=CORES, ahead=CORES):
            yield place, *fitted.result()

    def raw_scores(
        self, arrays: dict[str, NDArray[Any]], embeddings: Floats, patches: Floats, groups: NDArray[Any]
    ) -> tuple[Floats, Floats | None]:
        """Largest patch distance float32 [N], and all of them float32 [N, P]."""
        patches = _projected(patches, arrays["patch_projection"])
        distances = np.empty(patches.shape[:2], np.float32)
        # Recipes of older graphs have none.
        all_scales = arrays.get("patch_scales", np.zeros(arrays["patch_means"].shape[:2], np.float32))
        for group in np.unique(groups):
            rows = np.flatnonzero(np.asarray(groups) == group)
            means, factors, scales = arrays["patch_means"][group], arrays["patch_factors"][group], all_scales[group]
            for position in range(patches.shape[1]):
                centred = patches[rows, position] - means[position]
                squared = scales[position] * _squares(centred) - _squares(centred @ factors[position])
                distances[rows, position] = np.sqrt(np.abs(squared))
        return distances.max(axis=1), distances


def check_rank(rank: int | None, inputs: Sequence[TensorSpec]) -> None:
    """Raise InputError when a graph with these inputs takes no factors of that rank."""
    shape = next(tensor.shape for tensor in inputs if tensor.name == "patch_factors")
    _columns(rank, int(shape[2]))
    if rank is not None and isinstance(shape[3], int):
        raise InputError(
            f"--rank {rank}: this bundle's padim graphs take full covariances only: leave --rank away, or export again"
        )


def options_of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """The options of `fit` that a recipe's Gaussians have: rank, None when they are full or it has none, and
    likelihood_ratio."""
    dim, columns = arrays["patch_factors"].shape[2:] if "patch_factors" in arrays else (0, 0)
    return {"rank": columns if columns < dim else None, "likelihood_ratio": "patch_changes" in arrays}


def _columns(rank: int | None, dim: int) -> int:
    if rank is not None and not 0 < rank < dim:
        raise InputError(
            f"--rank {rank}: 1 to {dim - 1} for this encoder; without --rank all {dim} dimensions are kept"
        )
    return rank or dim


def _squares(vectors: Floats) -> Floats:
    """Squared length of each row."""
    return np.asarray(np.einsum("nd,nd->n", vectors, vectors), np.float32)


def _root(changes: Floats, columns: int) -> Floats:
    """Root of the matrix [R, R] along the directions of its largest eigenvalues, float32 [R, columns]."""
    values, axes = np.linalg.eigh(changes.astype(np.float64))
    return np.asarray(axes[:, -columns:] * np.sqrt(np.maximum(values[-columns:], 0)), np.float32)


def _projection(dim: int, seed: int) -> Floats:
    """Orthonormal columns, float32 [D, R]."""
    kept = projected_dim(dim)
    if kept == dim:
        return np.eye(dim, dtype=np.float32)
    drawn = np.random.default_rng(seed).standard_normal((dim, kept))
    return np.linalg.qr(drawn)[0].astype(np.float32)


def _projected(patches: Floats, projection: Floats) -> Floats:
    dim, kept = projection.shape
    return patches if kept == dim else patches @ projection


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
