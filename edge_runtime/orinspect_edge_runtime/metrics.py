"""Metrics of anomaly scores on labelled images: what a report may quote. Exact, ties included; no thresholds sampled.

`labels` is True (or 1) for defective images, `scores` is higher for more anomalous ones; both are [n]. Everything here
raises InputError for lengths that differ, scores that are not finite, or a class that has no image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.pixel_curve import area_under, count_pixels, weigh
from orinspect_edge_runtime.regions import connected_regions

Doubles = NDArray[np.float64]
Metric = Callable[[NDArray[Any], NDArray[Any]], float]


def auroc(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    """Area under the ROC curve: the chance that a defective image outscores a good one, ties counting half."""
    return _auroc(*_counts(*checked(labels, scores))[:2])


def roc_curve(labels: NDArray[Any], scores: NDArray[Any]) -> tuple[Doubles, Doubles, Doubles]:
    """False-positive rates, true-positive rates and thresholds (score >= threshold), from (0, 0, inf) to (1, 1)."""
    marked, values = checked(labels, scores)
    hits, alarms, thresholds = _counts(marked, values)
    tpr = np.concatenate([[0.0], hits / hits[-1]])
    false = alarms - hits
    fpr = np.concatenate([[0.0], false / false[-1]])
    return fpr, tpr, np.concatenate([[np.inf], thresholds])


def average_precision(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    """Average precision: precision weighted by the recall each distinct threshold adds; nothing is interpolated."""
    return _average_precision(*_counts(*checked(labels, scores))[:2])


def f1_max(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    """The best F1 of any threshold: an upper bound, since it is chosen on the very images it is judged by."""
    return _f1_max(*_counts(*checked(labels, scores))[:2])


def fpr_at_tpr(labels: NDArray[Any], scores: NDArray[Any], tpr: float = 0.95) -> float:
    """The lowest false-positive rate at which at least the share `tpr` of the defective images is found."""
    if not 0 < tpr <= 1:
        raise InputError(f"a true-positive rate of {tpr} cannot be asked for: use more than 0 and at most 1")
    return _fpr_at_tpr(*_counts(*checked(labels, scores))[:2], tpr)


def pixel_auroc(masks: NDArray[Any], maps: NDArray[Any]) -> float:
    """AUROC over all pixels. masks: bool [N, H, W], True where defective. maps: float [N, H, W].

    Raises InputError as `auroc` does, and when all or no pixels are defective.
    """
    marked, values = _checked_maps(masks, maps)
    bad = values[marked]
    thresholds = np.unique(bad)
    gains = weigh(thresholds, bad, np.full(len(bad), 1.0 / len(bad)))
    return area_under(count_pixels(thresholds, values[~marked]), gains)


def aupro(masks: NDArray[Any], maps: NDArray[Any], *, limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to the pixel false-positive rate `limit`, divided by it.

    Bergmann et al. 2021, doi 10.1007/s11263-020-01400-4: each connected defect (8 neighbours) counts alike, whatever
    its size. masks, maps: as in `pixel_auroc`. Computed at every distinct score, the last segment cut at `limit`.
    """
    marked, values = _checked_maps(masks, maps)
    if not 0 < limit <= 1:
        raise InputError(f"a false-positive rate limit of {limit} cannot be used: more than 0 and at most 1")
    region, count = connected_regions(marked)
    weights = (1.0 / (np.bincount(region, minlength=count) * count))[region]
    bad = values[marked]
    thresholds = np.unique(bad)
    return area_under(count_pixels(thresholds, values[~marked]), weigh(thresholds, bad, weights), limit)


def _checked_maps(masks: NDArray[Any], maps: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    marks, values = np.asarray(masks), np.asarray(maps)
    if marks.ndim != 3 or marks.shape != values.shape:
        raise InputError(f"masks {list(marks.shape)} and maps {list(values.shape)} must both be [N, H, W]")
    flat, scores = checked(marks.reshape(-1), values.reshape(-1), "pixels")
    return flat.reshape(marks.shape), scores.reshape(marks.shape)


def spearman(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Spearman's rank correlation of two series [n], ties at their mean rank; nan when one of them is constant."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise InputError(f"a rank correlation needs two series of one length >= 2, not {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("the series hold values that are not finite, which have no rank")
    x, y = mid_ranks(a), mid_ranks(b)
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(np.clip(x @ y / norm, -1.0, 1.0)) if norm > 0 else float("nan")


def mid_ranks(values: NDArray[Any]) -> Doubles:
    """Ranks 1..n, float64 [n]; equal values share the mean of their ranks."""
    ordered = np.sort(values)
    low = np.searchsorted(ordered, values, "left").astype(np.float64)
    return (low + np.searchsorted(ordered, values, "right") + 1) / 2


def bootstrap_intervals(
    metrics: Sequence[Metric],
    labels: NDArray[Any],
    scores: NDArray[Any],
    *,
    confidence: float = 0.95,
    rounds: int = 1000,
    seed: int = 0,
) -> list[tuple[float, float]]:
    """Percentile bootstrap intervals of some of this file's image metrics, all of them on the same draws.

    Good and defective images are drawn anew separately, each round: that keeps their numbers, so no round lacks one. The
    result depends on `seed` alone. Scores are sorted once, not each round.
    """
    marked, values = checked(labels, scores)
    if not 0 < confidence < 1 or rounds < 1:
        raise InputError(f"a bootstrap needs 0 < confidence < 1 and rounds >= 1, not {confidence} and {rounds}")
    rng, order = np.random.default_rng(seed), np.argsort(-values, kind="stable")
    last = _last_of_each(values[order])
    good, bad = np.flatnonzero(~marked), np.flatnonzero(marked)
    drawn = np.empty((len(metrics), rounds))
    for number in range(rounds):
        # How often each image was drawn, by falling score.
        false, true = (np.bincount(rng.choice(rows, len(rows)), minlength=len(values))[order] for rows in (good, bad))
        hits, alarms = (np.cumsum(times, dtype=np.float64)[last] for times in (true, true + false))
        seen = np.diff(alarms, prepend=0.0) > 0
        drawn[:, number] = [_OF_COUNTS[metric](hits[seen], alarms[seen]) for metric in metrics]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def checked(labels: NDArray[Any], scores: NDArray[Any], noun: str = "images") -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """`labels` as bool [n] and `scores` as floats [n]. Raises InputError for what no metric can be computed from."""
    marks, values = np.asarray(labels), np.asarray(scores)
    if marks.shape != values.shape or values.ndim != 1:
        raise InputError(f"labels {list(marks.shape)} and scores {list(values.shape)} must be two lists of one length")
    if marks.dtype != np.bool_ and not np.isin(marks, (0, 1)).all():
        raise InputError("a label must be 0 (good) or 1 (defective)")
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError("the scores hold values that are not finite; the model or its precision is broken")
    marked = marks.astype(bool)
    defective = int(marked.sum())
    if defective in (0, len(marked)):
        raise InputError(
            f"{len(marked) - defective} good and {defective} defective {noun}: metrics need at least one of each"
        )
    return marked, values


def _counts(marked: NDArray[np.bool_], values: NDArray[Any]) -> tuple[Doubles, Doubles, Doubles]:
    """Hits and alarms (both kinds) at each distinct score, highest first, and those scores."""
    order = np.argsort(-values, kind="stable")
    values = values[order]
    last = _last_of_each(values)
    hits = np.cumsum(marked[order], dtype=np.float64)[last]
    return hits, np.asarray(last + 1, np.float64), values[last].astype(np.float64)


def _last_of_each(ordered: NDArray[Any]) -> NDArray[np.intp]:
    """Place of the last of each distinct value."""
    return np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)


def _auroc(hits: Doubles, alarms: Doubles) -> float:
    false, before = alarms - hits, np.append(0.0, hits[:-1])
    return float(np.sum(np.diff(false, prepend=0.0) * (before + hits)) / (2.0 * false[-1] * hits[-1]))


def _average_precision(hits: Doubles, alarms: Doubles) -> float:
    return float(np.sum(np.diff(hits / hits[-1], prepend=0.0) * (hits / alarms)))


def _f1_max(hits: Doubles, alarms: Doubles) -> float:
    return float(np.max(2 * hits / (alarms + hits[-1])))


def _fpr_at_tpr(hits: Doubles, alarms: Doubles, tpr: float = 0.95) -> float:
    false = alarms - hits
    return float((false / false[-1])[hits / hits[-1] >= tpr].min())


# What a metric computes from hits and alarms at each distinct score.
_OF_COUNTS: dict[Metric, Callable[[Doubles, Doubles], float]] = {
    auroc: _auroc,
    average_precision: _average_precision,
    f1_max: _f1_max,
    fpr_at_tpr: _fpr_at_tpr,
}
