"""Nearest rows of a large memory bank: a score equal to the flat search's for a small part of its arithmetic.

A patch's distance only matters where it is the largest of its image. So every patch first gets an upper bound, the exact
distance to the best of a few candidate rows; then the patches with the largest bounds are searched exactly, in the whole
bank, until the largest exact distance is no smaller than every bound that is left. That is the certificate: no other
patch can be farther. Where it costs more than it saves, the whole image is searched flat instead.

Candidates come from cells (k-means, Sivic & Zisserman 2003) of sketches. A sketch is a vector's part in the bank's main
directions (PCA) and the length of what is left: a map that never lengthens a distance, so the distance of two sketches
is a lower bound, by which the exact search rules out nearly all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]
# Share of the bank's variance that the main directions hold, and the share of all directions above which the vectors
# themselves serve as sketches. Whitened features have no main directions.
SKETCHED_VARIANCE, MOST_DIRECTIONS = 0.96, 0.6
# Cells a patch looks into.
PROBES = 4
# Shares of the patches, and of the bank's rows times patches, beyond which the flat search is the faster one.
FLAT_PATCHES, FLAT_ROWS = 0.25, 0.05
SAMPLE, SAMPLE_A_CELL, KMEANS_ROUNDS = 4096, 40, 6
# Rows whose mean a flat search is centred at.
CENTRED = 256
# Bytes of an intermediate result: what stays in the cache, and is not fetched from the system and given back each time.
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Nearest:
    """What a search found for the P patches of one image.

    distances: float32 [P]. The largest is exact, and so is every one of the `exact` patches; others are upper bounds,
    of an existing row, and none is above the largest. rows: int [P], the row that each distance is to. exact: bool [P].
    """

    distances: Floats
    rows: Rows
    exact: NDArray[np.bool_]


class PatchSearch:
    """A bank prepared for searching. Safe to call from several threads.

    rows: float32 [M, D], M >= 1, finite, the numbers of a row side by side; they are kept, not copied, and must not
    change. Memory: their sketches, twice while preparing. Nothing is random.
    """

    def __init__(self, rows: Floats) -> None:
        sample = rows[_spread(len(rows), SAMPLE)]
        self._rows, self._centre = rows, sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        sample -= self._centre
        self._directions = _main_directions(sample)
        del sample
        sketches = np.empty((len(rows), self._sketch(rows[:1]).shape[1]), np.float32)
        for block in _blocks(rows):
            sketches[block] = self._sketch(rows[block])
        centres = _k_means(sketches, max(1, round(len(rows) ** 0.5)))
        cells = _closest(sketches, centres)
        self._order = np.argsort(cells, kind="stable")
        self._starts = np.searchsorted(cells[self._order], np.arange(len(centres) + 1))
        self._sketches, self._norms = np.empty(sketches.T.shape, np.float32), squares(sketches)[self._order]
        for block in _blocks(sketches):
            self._sketches[:, block] = sketches[self._order[block]].T
        self._centres, self._centre_norms = np.ascontiguousarray(centres.T), squares(centres)

    def __call__(self, patches: Floats) -> Nearest:
        """Search for the patches float32 [P, D] of one image, finite and in the space of the rows."""
        sketches = self._sketch(patches)
        squared, best = self._candidates(patches, sketches)
        exact = self._refine(patches, sketches, squared, best)
        if exact is None:
            squared, best = self._flat(patches)
            exact = np.ones(len(patches), bool)
        return Nearest(np.sqrt(squared), best, exact)

    def _sketch(self, vectors: Floats) -> Floats:
        vectors = vectors - self._centre
        if self._directions is None:
            return vectors
        inside = vectors @ self._directions
        left = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
        left -= np.einsum("nd,nd->n", inside, inside, dtype=np.float64)
        return np.concatenate([inside, np.sqrt(np.maximum(left, 0))[:, None].astype(np.float32)], axis=1)

    def _candidates(self, queries: Floats, sketches: Floats) -> tuple[Floats, Rows]:
        """Squared distance and row of the best of one candidate from each cell that a patch looks into."""
        cells = self._nearest_cells(sketches)
        candidates = self._best_in_cells(sketches, cells)
        squared = np.stack([squares(queries - self._rows[rows]) for rows in candidates])
        chosen, patches = squared.argmin(axis=0), np.arange(len(queries))
        return squared[chosen, patches], candidates[chosen, patches]

    def _nearest_cells(self, sketches: Floats) -> Rows:
        """Numbers of the PROBES nearest cells, [probes, P]; those without rows are never among them."""
        nearness = (2 * sketches) @ self._centres
        nearness -= self._centre_norms
        nearness[:, np.diff(self._starts) == 0] = -np.inf
        patches, found = np.arange(len(sketches)), []
        for _ in range(min(PROBES, int(np.count_nonzero(np.diff(self._starts))))):
            found.append(nearness.argmax(axis=1))
            nearness[patches, found[-1]] = -np.inf
        return np.stack(found)

    def _best_in_cells(self, sketches: Floats, cells: Rows) -> Rows:
        """The row of each named cell whose sketch is nearest, [probes, P]: one small matrix product a cell."""
        order = np.argsort(cells, axis=None, kind="stable")
        visits = np.searchsorted(cells.reshape(-1)[order], np.arange(len(self._starts)))
        doubled = 2 * sketches[order % len(sketches)]
        best = np.empty(len(order), np.intp)
        for cell in np.flatnonzero(np.diff(visits)):
            patches, rows = slice(*visits[cell : cell + 2]), slice(*self._starts[cell : cell + 2])
            nearness = doubled[patches] @ self._sketches[:, rows]
            nearness -= self._norms[rows]
            best[patches] = nearness.argmax(axis=1) + rows.start
        found = np.empty_like(best)
        found[order] = self._order[best]
        return found.reshape(cells.shape)

    def _refine(self, queries: Floats, sketches: Floats, squared: Floats, best: Rows) -> NDArray[np.bool_] | None:
        """Make distances exact, in place, from the largest down until none that is left can be the image's.

        Returns which are exact, or None where a flat search of all is the cheaper way.
        """
        exact, score, read = np.zeros(len(squared), bool), np.float32(-1), 0
        for number, pick in enumerate(np.argsort(-squared, kind="stable")):
            if squared[pick] <= score:
                break
            bounds = self._lower_bounds(sketches[pick])
            self._improve(queries, squared, best, pick, self._order[bounds.argmin()][None])
            if squared[pick] <= score:
                continue
            rows = self._order[bounds <= squared[pick]]
            read += len(rows)
            if number > FLAT_PATCHES * len(squared) or read > FLAT_ROWS * len(squared) * len(self._rows):
                return None
            self._improve(queries, squared, best, pick, rows)
            exact[pick], score = True, max(score, squared[pick])
        return exact

    def _lower_bounds(self, sketch: Floats) -> Floats:
        """Squared distances of a sketch to those of all rows, [M] in the order of the cells, less what float32 can be
        wrong by.
        """
        norm = sketch @ sketch
        slack = 4 * np.finfo(np.float32).eps * self._rows.shape[1]
        bounds = (-2 * sketch) @ self._sketches
        bounds += self._norms
        bounds += norm - slack * (norm + self._norms.max())
        return np.asarray(bounds, np.float32)

    def _improve(self, queries: Floats, squared: Floats, best: Rows, pick: Any, rows: Rows) -> None:
        """Take the nearest of some rows for a pick's best, in place, where it is nearer."""
        if len(rows) == 0:
            return
        found = squares(self._rows[rows] - queries[pick])
        nearest = int(found.argmin())
        if found[nearest] < squared[pick]:
            squared[pick], best[pick] = found[nearest], rows[nearest]

    def _flat(self, queries: Floats) -> tuple[Floats, Rows]:
        squared, best = flat_nearest(queries, self._rows, 1)
        return squared[:, 0], best[:, 0]


def flat_nearest(queries: Floats, rows: Floats, count: int) -> tuple[Floats, Rows]:
    """Squared distances float32 [P, count] of queries [P, D] to their nearest rows of [M, D], nearest first, and the rows'
    numbers. count: 1 to M.

    Memory beside the results: BLOCK_BYTES of rows, and their products with the queries.
    """
    # Seen from amid the rows, float32 loses the least.
    centre = rows[_spread(len(rows), CENTRED)].mean(axis=0)
    doubled = 2 * (queries - centre)
    nearness, best = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.intp)
    for block in _blocks(rows):
        centred = rows[block] - centre
        found = doubled @ centred.T
        found -= squares(centred)
        picked = _largest(found, count)
        best = np.concatenate([best, picked + block.start], axis=1)
        nearness = np.concatenate([nearness, np.take_along_axis(found, picked, axis=1)], axis=1)
        kept = _largest(nearness, count)
        nearness, best = np.take_along_axis(nearness, kept, axis=1), np.take_along_axis(best, kept, axis=1)
    squared = np.stack([squares(queries - rows[numbers]) for numbers in best.T], axis=1)
    order = np.argsort(squared, axis=1, kind="stable")
    return np.take_along_axis(squared, order, axis=1), np.take_along_axis(best, order, axis=1)


def _largest(values: Floats, count: int) -> Rows:
    """Columns [n, count] of the largest values of each row of [n, m], in ascending order; all of them when m is smaller."""
    if count == 1:
        return np.asarray(values.argmax(axis=1)[:, None])
    if count >= values.shape[1]:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    return np.sort(np.argpartition(values, -count, axis=1)[:, -count:], axis=1)


def _main_directions(sample: Floats) -> Floats | None:
    """Orthonormal columns [D, r] that hold SKETCHED_VARIANCE of the sample, or None when they would be too many."""
    values, axes = np.linalg.eigh((sample.T @ sample).astype(np.float64))
    held = np.cumsum(np.maximum(values[::-1], 0))
    count = int(np.searchsorted(held, SKETCHED_VARIANCE * held[-1])) + 1
    if count > MOST_DIRECTIONS * len(values):
        return None
    return np.ascontiguousarray(axes[:, ::-1][:, :count], np.float32)


def _k_means(points: Floats, count: int) -> Floats:
    """Lloyd's algorithm on a sample; a centre that no point is nearest to keeps its place."""
    sample = points[_spread(len(points), SAMPLE_A_CELL * count)]
    centres = sample[_spread(len(sample), count)]
    for _ in range(KMEANS_ROUNDS):
        nearest = _closest(sample, centres)
        order = np.argsort(nearest, kind="stable")
        used, starts = np.unique(nearest[order], return_index=True)
        sizes = np.diff(np.append(starts, len(order)))
        centres[used] = np.add.reduceat(sample[order], starts, axis=0) / sizes[:, None]
    return np.asarray(centres, np.float32)


def _closest(points: Floats, centres: Floats) -> Rows:
    norms, nearest = squares(centres), np.empty(len(points), np.intp)
    step = max(1, BLOCK_BYTES // (4 * len(centres)))
    for begin in range(0, len(points), step):
        nearness = (2 * points[begin : begin + step]) @ centres.T
        nearness -= norms
        nearest[begin : begin + step] = nearness.argmax(axis=1)
    return nearest


def _blocks(vectors: Floats) -> Iterator[slice]:
    """Slices of BLOCK_BYTES of rows, one after the other."""
    step = max(1, BLOCK_BYTES // (4 * vectors.shape[1]))
    return (slice(begin, begin + step) for begin in range(0, len(vectors), step))


def _spread(count: int, most: int) -> Rows:
    """Numbers of all of `count` things, or of `most` of them at equal steps."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.intp)


def squares(vectors: Floats) -> Floats:
    """Squared length of each row."""
    return np.asarray(np.einsum("nd,nd->n", vectors, vectors), np.float32)
