"""Mean distance of the image embedding to its nearest good images (Ramaswamy et al. 2000; Reiss et al. 2021, PANDA)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.groups import members, standardisation

Floats = NDArray[np.float32]
CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class Knn:
    """Mean distance to the `neighbours` nearest standardised embeddings of the group. It draws no map.

    Memory: all good embeddings, 4 bytes x N x E (3.8 MB a thousand images at 960), and CHUNK_BYTES.
    """

    neighbours: int = 5
    name: ClassVar[str] = "knn"
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
        """`embedding_mean`, `embedding_scale` float32 [G, E]; `references` float32 [M, E], ordered by group;
        `reference_counts` int32 [G]; `reference_origin` int32 [M], the rows' images. The seed is not used."""
        means, scales, references, counts, origins = [], [], [], [], []
        for group in range(n_groups):
            rows = members(groups, group)
            values = embeddings[rows]
            origins.append(rows)
            mean, scale = standardisation(values)
            means.append(mean)
            scales.append(scale)
            references.append((values - mean) * scale)
            counts.append(len(values))
        if progress is not None:
            progress(1.0)
        return {
            "embedding_mean": np.stack(means).astype(np.float32),
            "embedding_scale": np.stack(scales).astype(np.float32),
            "references": np.concatenate(references).astype(np.float32),
            "reference_counts": np.array(counts, np.int32),
            "reference_origin": np.concatenate(origins).astype(np.int32),
        }

    def raw_scores(
        self, arrays: dict[str, NDArray[Any]], embeddings: Floats, patches: Floats, groups: NDArray[Any]
    ) -> tuple[Floats, Floats | None]:
        """Mean distances float32 [N], and no map. `patches` are not looked at."""
        scores = np.empty(len(embeddings), np.float32)
        ends = np.cumsum(arrays["reference_counts"])
        for group in np.unique(groups):
            rows = np.flatnonzero(np.asarray(groups) == group)
            end = int(ends[group])
            known = arrays["references"][end - int(arrays["reference_counts"][group]) : end]
            values = (embeddings[rows] - arrays["embedding_mean"][group]) * arrays["embedding_scale"][group]
            scores[rows] = self._mean_distances(values, known)
        return scores, None

    def _mean_distances(self, values: Floats, known: Floats) -> Floats:
        count = min(self.neighbours, len(known))
        norms = np.einsum("me,me->m", known, known)
        out = np.empty(len(values), np.float32)
        step = max(1, CHUNK_BYTES // (4 * len(known)))
        for begin in range(0, len(values), step):
            part = values[begin : begin + step]
            squared = norms - 2 * (part @ known.T) + np.einsum("ne,ne->n", part, part)[:, None]
            nearest = np.partition(squared, count - 1, axis=1)[:, :count]
            out[begin : begin + step] = np.sqrt(np.maximum(nearest, 0)).mean(axis=1)
        return out
