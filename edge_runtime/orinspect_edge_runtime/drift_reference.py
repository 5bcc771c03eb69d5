"""What a drift monitor must know of the good images a recipe was fitted on: a linear map and an alarm limit a part.

Four parts, each a vector an image: its `scores` (one number: how high the score lies among unseen good ones), its
`embedding`, its `appearance` and its `light`, which is the appearance along LIGHT alone. A part maps an image's vector to
K coordinates, (x - mean[group]) @ axes, that have about mean 0 and variance 1 for good images of every group; a vector
longer than `reach` is shortened to it, so that one defective piece moves the monitor no further than an odd good one. The
limit is simulated: see `alarm_limit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.groups import members, standardisation
from orinspect_edge_runtime.threshold import p_values

Floats = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]
# What more light or a longer exposure adds to the figures of appearance.py: all but the warmth grow by one factor.
LIGHT = np.array([1, 1, 1, 1, 0], np.float64)
# Images between two false alarms of the whole monitor, on average, where its limits are no higher than they have to be; on
# the benchmark's lines, six thousand.
RUN_LENGTH = 3500


class Chart(NamedTuple):
    """How a part is watched. share: of the false alarms. forgetting: weight of the newest image in the running mean, which
    then has the variance of that of 2 / forgetting - 1 images. along: the only direction that counts, [D]."""

    share: float
    forgetting: float
    along: NDArray[np.float64] | None = None


# Appearance and light see the smallest changes, in words that say what to mend, so they are allowed the most alarms. One
# direction is surer than several: the light can wait for smaller changes without seeing large ones later.
PARTS = {
    "scores": Chart(0.1, 0.06),
    "embedding": Chart(0.2, 0.06),
    "appearance": Chart(0.3, 0.06),
    "light": Chart(0.4, 0.05, LIGHT),
}
MOST_AXES = 64
# Fewer images say too little about the spread of a vector.
FEWEST_IMAGES = 20
IMAGES_AN_AXIS = 4
FOLDS = 3
CHAINS, STEPS = 2000, 400
REACH = 0.9
FURTHEST_SCORE = 2.5


@dataclass(frozen=True)
class Part:
    """mean: float32 [G, D]. axes: float32 [D, K]. reach: length of the longest coordinates. limit: of the statistic."""

    mean: Floats
    axes: Floats
    reach: float
    limit: float

    def coordinates(self, vectors: NDArray[Any], groups: NDArray[Any]) -> NDArray[np.float64]:
        """Coordinates float64 [N, K] of vectors [N, D] of images of some groups [N]."""
        return _shortened(((vectors - self.mean[groups]) @ self.axes).astype(np.float64), self.reach)

    def arrays(self, name: str) -> Arrays:
        """The part as arrays of a recipe."""
        return {
            f"drift_{name}_mean": self.mean,
            f"drift_{name}_axes": self.axes,
            f"drift_{name}_rule": np.array([self.reach, self.limit], np.float64),
        }


def read_part(arrays: Arrays, name: str) -> Part | None:
    """The part of that name, or None in a recipe that has none: of few images, of an earlier version, or all alike."""
    reach, limit = arrays.get(f"drift_{name}_rule", (0.0, 0.0))
    if limit <= 0:
        return None
    return Part(arrays[f"drift_{name}_mean"], arrays[f"drift_{name}_axes"], float(reach), float(limit))


def drift_arrays(
    embeddings: Floats,
    appearances: Floats | None,
    groups: NDArray[np.intp],
    scores: NDArray[Any],
    seed: int = 0,
) -> Arrays:
    """Arrays `drift_*` of a recipe, from its good images in the order they were taken; none for under FEWEST_IMAGES.

    embeddings: float32 [N, E]. appearances: float32 [N, A], or None when the pictures are not at hand. scores: [N], by
    models that had not seen the image.
    """
    if len(embeddings) < FEWEST_IMAGES:
        return {}
    arrays = scores_part(scores, groups, seed).arrays("scores")
    for name, vectors in {"embedding": embeddings, "appearance": appearances, "light": appearances}.items():
        if vectors is not None:
            arrays |= fit_part(vectors, groups, PARTS[name], seed).arrays(name)
    return arrays


def scores_part(scores: NDArray[Any], groups: NDArray[np.intp], seed: int = 0) -> Part:
    """The part of the scores: their normal scores (see `normal_score`), for the limit among scores of other images."""
    mean, fold = np.zeros((int(groups.max()) + 1, 1), np.float32), _folds(groups)
    held = []
    for number in range(FOLDS):
        among = p_values(scores[fold != number], scores[fold == number], ties="middle")
        held.append(np.array([normal_score(p) for p in among], np.float64).reshape(-1, 1))
    limit = alarm_limit(held, PARTS["scores"], seed)
    return Part(mean, np.ones((1, 1), np.float32), FURTHEST_SCORE, limit)


def normal_score(p_value: float) -> float:
    """A p-value as the value of a standard normal variable that is exceeded with that probability."""
    return float(np.clip(-NormalDist().inv_cdf(min(max(p_value, 1e-9), 1 - 1e-9)), -FURTHEST_SCORE, FURTHEST_SCORE))


def fit_part(vectors: Floats, groups: NDArray[np.intp], chart: Chart, seed: int = 0) -> Part:
    """Mean and axes of all images; reach and limit from images that the axes were not fitted on."""
    fold, count, held = _folds(groups), int(groups.max()) + 1, []
    for number in range(FOLDS):
        out = fold == number
        mean, axes = _map(vectors[~out], groups[~out], count, chart.along)
        held.append(((vectors[out] - mean[groups[out]]) @ axes).astype(np.float64))
    reach = float(np.quantile(np.concatenate([np.linalg.norm(found, axis=1) for found in held]), REACH))
    limit = alarm_limit([_shortened(found, reach) for found in held], chart, seed)
    return Part(*_map(vectors, groups, count, chart.along), reach, limit)


def _folds(groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """Fold number of each image [N]: stretches of time, alike for every group."""
    fold = np.zeros(len(groups), np.intp)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        fold[rows] = np.arange(len(rows)) * FOLDS // len(rows)
    return fold


def _shortened(found: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """Rows [N, K], those longer than `reach` scaled to it."""
    length = np.linalg.norm(found, axis=1, keepdims=True)
    shortened: NDArray[np.float64] = found * np.minimum(1.0, reach / np.maximum(length, 1e-12))
    return shortened


def _map(
    vectors: Floats, groups: NDArray[np.intp], count: int, along: NDArray[np.float64] | None
) -> tuple[Floats, Floats]:
    """Group means [G, D] and whitened leading axes [D, K] of what varies within the groups; given a direction, the one
    axis that sees a change along it best (Fisher's discriminant)."""
    mean = np.stack([vectors[members(groups, g)].mean(axis=0) for g in range(count)]).astype(np.float32)
    within = vectors - mean[groups]
    _, scale = standardisation(within)
    _, spread, axes = np.linalg.svd(within * scale, full_matrices=False)
    kept = max(1, min(MOST_AXES, len(vectors) // IMAGES_AN_AXIS, int((spread > 1e-3 * spread[0]).sum())))
    deviation = np.maximum(spread[:kept] / np.sqrt(len(vectors)), 1e-9)
    whitened = scale[:, None] * axes[:kept].T / deviation
    if along is not None:
        seen = along @ whitened
        whitened = (whitened @ seen / max(np.linalg.norm(seen), 1e-9))[:, None]
    return mean, whitened.astype(np.float32)


def statistic(running: NDArray[Any], forgetting: float) -> NDArray[np.float64]:
    """MEWMA statistic [...] of running means [..., K] (Lowry et al. 1992, doi 10.1080/00401706.1992.10485232)."""
    value: NDArray[np.float64] = np.einsum("...k,...k->...", running, running) * (2 - forgetting) / forgetting
    return value


def alarm_limit(stretches: list[NDArray[np.float64]], chart: Chart, seed: int) -> float:
    """The limit that good images pass once in RUN_LENGTH / chart.share images on average, by simulated runs.

    stretches: coordinates [n, K] of successive good images, each stretch seen by a map of the others: what they differ
    from each other is what a line does anyway. A run follows a stretch and now and then jumps to another place in it
    (stationary bootstrap, Politis & Romano 1994, doi 10.1080/01621459.1994.10476870), so that neighbours stay as alike
    as they were; it is off its stretch by as much as the mean of all images may be off the line's. What so few images
    show of how neighbours differ is uncertain, so the limit is no lower than that of the same images in any order.
    """
    rng, total = np.random.default_rng([seed, 1]), sum(map(len, stretches))
    seen = [_usual(found, total) for found in stretches if len(found)]
    alone = [stretch - stretch.mean(axis=0) for stretch in seen]
    alarmed = -np.expm1(-STEPS * chart.share / RUN_LENGTH)
    limits = []
    for runs, jumping in ((seen, chart.forgetting), (alone, 1.0)):
        highest = [_highest(run, chart, jumping, CHAINS // len(runs), total, rng) for run in runs]
        limits.append(np.quantile(np.concatenate(highest), 1 - alarmed))
    return float(max(limits))


def _highest(
    stretch: NDArray[np.float64], chart: Chart, jumping: float, chains: int, total: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The highest statistic of each of some simulated runs, [chains]. jumping: share of the steps that jump."""
    place = rng.integers(len(stretch), size=chains)
    off = rng.standard_normal((chains, stretch.shape[1])) * stretch.std(axis=0) / np.sqrt(total)
    running, highest, warm_up = np.zeros_like(off), np.zeros(chains), round(3 / chart.forgetting)
    for step in range(warm_up + STEPS):
        jumps = rng.random(chains) < jumping
        place = np.where(jumps, rng.integers(len(stretch), size=chains), place + 1) % len(stretch)
        running += chart.forgetting * (stretch[place] + off - running)
        if step >= warm_up:
            highest = np.maximum(highest, statistic(running, chart.forgetting))
    return highest


def _usual(stretch: NDArray[np.float64], total: int) -> NDArray[np.float64]:
    """A stretch [n, K] of `total` images without as much of its mean as there is by chance alone.

    The mean of a stretch and that of the others, which it is seen from, both have errors, far larger ones than the mean
    of all images; of a line that really changes from stretch to stretch nearly all is left (James & Stein 1961).
    """
    mean, count = stretch.mean(axis=0), len(stretch)
    by_chance = float(stretch.var(axis=0).sum()) * (1 / count + 1 / max(total - count, 1))
    kept = np.sqrt(max(0.0, 1 - by_chance / max(float(mean @ mean), 1e-12)))
    usual: NDArray[np.float64] = stretch - (1 - kept) * mean
    return usual
