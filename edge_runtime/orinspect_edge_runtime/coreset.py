"""Greedy k-centre selection: which patches represent all of them (the memory bank of PatchCore).

Each pick is the point farthest from the points picked so far (Gonzalez 1985; Sener & Savarese 2018), so any prefix of
the picks is itself the greedy selection of that size. The plain algorithm reads all points once a pick. Here a round
takes the `POOL` farthest points, picks greedily among them for as long as no point outside the pool could be farther
(distances only shrink, so the farthest outsider at the start of the round is a bound for the whole round), and only
then brings all distances up to date with one matrix product. The picks are those of the plain algorithm; only two
points whose distances agree to float32 rounding can swap, as they can in the plain one from one processor to another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import InputError

POOL = 256
# Bytes of the block of distances that is up to date at a time: it should stay in a core's cache.
BLOCK_BYTES = 1 << 20
Floats = NDArray[np.float32]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Coreset:
    """The picks, farthest first.

    indices: int64 [count], rows of the points. radii: float32 [count]; radii[j] is the covering radius of the first
    j + 1 picks, the distance from any point to its nearest pick at the worst.
    """

    indices: NDArray[np.int64]
    radii: Floats

    @property
    def radius(self) -> float:
        """The covering radius of all picks."""
        return float(self.radii[-1])


def greedy_k_centre(
    points: NDArray[Any], count: int, *, first: int | None = None, seed: int = 0, progress: Progress | None = None
) -> Coreset:
    """Pick `count` of `points`, float32 [n, D] with n >= count >= 1.

    first: the row to begin with, else one drawn from `seed`. progress: called with the share done. Points far from the
    origin lose precision, so pass centred ones. Working memory beside the points is at most 20 bytes x n, twice
    BLOCK_BYTES and POOL x (4 POOL + 2 D) x 4 bytes (1.4 MB at D = 152). Raises InputError for a count or a first row
    out of range, and for values that are not finite.
    """
    points, first = _checked(points, count, first, seed)
    norms = np.einsum("nd,nd->n", points, points)
    if not np.isfinite(norms).all():
        raise InputError("the patch features hold values that are not finite; the encoder or its precision is broken")
    nearest = np.full(len(points), np.inf, np.float32)
    indices, radii = np.empty(count, np.int64), np.empty(count, np.float32)
    picks, done = np.array([first]), 0
    while True:
        indices[done : done + len(picks)] = picks
        done += len(picks)
        _approach(nearest, points, norms, picks)
        radii[done - 1] = np.sqrt(max(float(nearest.max()), 0.0))
        if progress is not None:
            progress(done / count)
        if done == count:
            return Coreset(indices, radii)
        picks, squared = _pick_round(nearest, points, norms, count - done)
        radii[done : done + len(picks) - 1] = np.sqrt(np.maximum(squared[1:], 0.0))


def _checked(points: NDArray[Any], count: int, first: int | None, seed: int) -> tuple[Floats, int]:
    points = np.ascontiguousarray(points, np.float32)
    if points.ndim != 2 or not 1 <= count <= len(points):
        raise InputError(f"cannot pick {count} of the points {list(points.shape)}: pass [n, D] with n >= count >= 1")
    if first is None:
        first = int(np.random.default_rng(seed).integers(len(points)))
    if not 0 <= first < len(points):
        raise InputError(f"the first pick is row {first}, but there are {len(points)} points")
    return points, first


def _approach(nearest: Floats, points: Floats, norms: Floats, picks: NDArray[np.int64]) -> None:
    """Lower each point's squared distance to its nearest pick, in place; picked points get -1: never again."""
    centres = points[picks] * np.float32(-2)
    block = max(1, BLOCK_BYTES // (4 * len(picks)))
    for begin in range(0, len(points), block):
        rows = slice(begin, begin + block)
        squared = centres @ points[rows].T
        squared += norms[picks, None]
        closest = squared.min(axis=0) + norms[rows]
        np.minimum(nearest[rows], np.maximum(closest, 0, out=closest), out=nearest[rows])
    nearest[picks] = -1


def _pick_round(nearest: Floats, points: Floats, norms: Floats, most: int) -> tuple[NDArray[np.int64], Floats]:
    """Rows that the plain algorithm would pick next, at least one and at most `most`, and how far each was."""
    pool, bound = _farthest(nearest)
    chosen = points[pool]
    squared = norms[pool] + norms[pool, None] - 2 * (chosen @ chosen.T)
    left = nearest[pool]
    picks: list[int] = []
    distances: list[float] = []
    while len(picks) < most:
        best = int(left.argmax())
        # The first is the farthest of all points. A tie with an outsider goes to the next round, which sees both.
        if picks and left[best] <= bound:
            break
        picks.append(best)
        distances.append(float(left[best]))
        np.minimum(left, squared[best], out=left)
        left[picks] = -1
    return pool[picks], np.array(distances, np.float32)


def _farthest(nearest: Floats) -> tuple[NDArray[np.int64], float]:
    """The POOL farthest rows in ascending order, the very first farthest among them, and the farthest of the rest."""
    if len(nearest) <= POOL:
        return np.arange(len(nearest)), -1.0
    order = np.argpartition(nearest, len(nearest) - POOL)
    pool = order[len(nearest) - POOL :]
    bound = float(nearest[pool].min())
    farthest = int(nearest.argmax())
    if farthest not in pool:
        pool[0] = farthest
    return np.sort(pool), bound
