"""PatchCore (Roth et al. 2022, arXiv 2106.08265): distance to the nearest patch of good images, on whitened patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.coreset import greedy_k_centre
from orinspect_edge_runtime.groups import members
from orinspect_edge_runtime.heads import OTHER_GROUP_PENALTY
from orinspect_edge_runtime.whitening import Whitening, fit_whitening

Floats = NDArray[np.float32]
# Images whitened at a time, and bytes of the product of queries and bank at a time.
CHUNK_IMAGES = 64
CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class PatchCore:
    """One whitening for all groups; a bank of the most different patches of each group.

    subsample: patches of a group, drawn at random, that the bank is picked from; coreset: share of them that it keeps,
    at least `fewest_rows` if there are as many. Memory beside the patches given: 4 bytes x subsample x D (36 MB at 152)
    and the coreset's own, twice the bank, and CHUNK_BYTES.
    """

    subsample: int = 60_000
    coreset: float = 0.05
    fewest_rows: int = 400
    name: ClassVar[str] = "patchcore"
    head: ClassVar[str] = "patchcore"
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
        """`patch_mean` [D], `patch_projection` [D, D], `bank` [D + 1 + G, M], all float32, and two that no graph takes.

        `bank_origin`, int32 [M, 2]: image number and patch number of each row. `bank_radius`, float32 [G]: the largest
        distance of a group's patch, of those the rows were picked from, to its nearest row when it was fitted. Rows are
        ordered by group and, within one, so that any prefix is the best smaller bank.
        """
        whitening = fit_whitening(_chunks(patches))
        rng = np.random.default_rng(seed)
        rows, origins, owners, radii = [], [], [], []
        for group in range(n_groups):
            origin = self._subsample(members(groups, group), patches.shape[1], rng)
            chosen = whitening(patches[origin[:, 0], origin[:, 1]])
            count = min(len(chosen), max(self.fewest_rows, round(self.coreset * len(chosen))))
            picked = greedy_k_centre(chosen, count, seed=seed, progress=_part(progress, group, n_groups))
            rows.append(chosen[picked.indices])
            origins.append(origin[picked.indices])
            radii.append(picked.radius)
            owners.append(np.full(count, group))
        bank = bank_columns(np.concatenate(rows), np.concatenate(owners), n_groups)
        return {
            "patch_mean": whitening.mean,
            "patch_projection": whitening.projection,
            "bank": bank,
            "bank_origin": np.concatenate(origins).astype(np.int32),
            "bank_radius": np.array(radii, np.float32),
        }

    def _subsample(self, images: NDArray[np.intp], positions: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """[n, 2]: image and patch of the patches drawn from the images of a group."""
        total = len(images) * positions
        drawn = np.sort(rng.choice(total, min(self.subsample, total), replace=False))
        return np.stack([images[drawn // positions], drawn % positions], axis=1)

    def raw_scores(
        self, arrays: dict[str, NDArray[Any]], embeddings: Floats, patches: Floats, groups: NDArray[Any]
    ) -> tuple[Floats, Floats | None]:
        """Largest patch distance float32 [N], and all of them float32 [N, P]."""
        whitening = Whitening(arrays["patch_mean"], arrays["patch_projection"])
        bank = arrays["bank"]
        n_groups = len(bank) - patches.shape[2] - 1
        distances = np.empty(patches.shape[:2], np.float32)
        step = max(1, CHUNK_BYTES // (4 * bank.shape[1] * patches.shape[1]))
        for begin in range(0, len(patches), step):
            rows = slice(begin, begin + step)
            onehot = np.eye(n_groups, dtype=np.float32)[np.asarray(groups[rows])]
            distances[rows] = nearest_distances(whitening(patches[rows]), onehot, bank)
        return distances.max(axis=1), distances


def nearest_distances(whitened: Floats, onehot: Floats, bank: Floats) -> Floats:
    """Distance of whitened patches [N, P, D] to the nearest row of their image's group: the formula of the graph."""
    count, positions, _ = whitened.shape
    ones = np.ones((count, positions, 1), np.float32)
    marks = np.broadcast_to(onehot[:, None], (count, positions, onehot.shape[1]))
    best = (np.concatenate([2 * whitened, ones, marks], axis=2) @ bank).max(axis=2)
    squared = np.einsum("npd,npd->np", whitened, whitened)
    distances: Floats = np.sqrt(np.maximum(squared - best, 0))
    return distances


def bank_columns(rows: Floats, owners: NDArray[Any], n_groups: int) -> Floats:
    """The bank as the graph takes it, float32 [D + 1 + G, M], of whitened rows [M, D] and their groups [M].

    In memory and in a recipe's file a column's numbers lie side by side: searching reads whole columns.
    """
    norms = np.einsum("md,md->m", rows, rows)
    other = owners[:, None] != np.arange(n_groups)
    penalties = np.where(other, np.float32(-OTHER_GROUP_PENALTY), np.float32(0))
    bank: Floats = np.concatenate([rows, -norms[:, None], penalties], axis=1, dtype=np.float32).T
    return bank


def _chunks(patches: Floats) -> Iterator[Floats]:
    for begin in range(0, len(patches), CHUNK_IMAGES):
        yield patches[begin : begin + CHUNK_IMAGES].reshape(-1, patches.shape[2])


def _part(progress: Callable[[float], None] | None, group: int, n_groups: int) -> Callable[[float], None] | None:
    """Progress of one group as a part of the whole."""
    if progress is None:
        return None
    return lambda share: progress((group + share) / n_groups)
