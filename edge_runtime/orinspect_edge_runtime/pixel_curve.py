"""Curves over all pixels without holding them: exact, from counts of good pixels between the defective ones' values.

Such a curve (ROC, per-region overlap) rises only at the values of defective pixels. With these sorted as `thresholds`
[T], a good pixel matters only by where it lies among them: bin 2 t between thresholds t - 1 and t, bin 2 t + 1 on
threshold t. Counts of different images add up, so good pixels need not be kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Doubles = NDArray[np.float64]


def count_pixels(thresholds: NDArray[Any], values: NDArray[Any]) -> Counts:
    """Number of `values` [n] in each bin, int64 [2 T + 1]. thresholds: distinct, in ascending order."""
    # Values looked up in ascending order are several times faster than at random.
    ordered = np.sort(values)
    place = np.searchsorted(thresholds, ordered, "left") + np.searchsorted(thresholds, ordered, "right")
    return np.bincount(place, minlength=2 * len(thresholds) + 1).astype(np.int64)


def weigh(thresholds: NDArray[Any], values: NDArray[Any], weights: Doubles) -> Doubles:
    """Total weight of the `values` [n] at each threshold, float64 [T]; every value is one of them."""
    total: Doubles = np.bincount(np.searchsorted(thresholds, values), weights, len(thresholds)).astype(np.float64)
    return total


def area_under(counts: Counts, gains: Doubles, limit: float = 1.0) -> float:
    """Area under the curve of found weight over false-positive rate, from 0 to `limit`, divided by `limit`.

    counts: good pixels in each bin [2 T + 1], not all 0. gains: weight that each threshold [T] adds, 1 in all. Where
    good and defective pixels tie both rise together, in a straight line.
    """
    gain = np.zeros(len(counts))
    gain[1::2] = gains
    wide = (counts / counts.sum())[::-1]
    gain = gain[::-1]
    end, found = np.cumsum(wide), np.cumsum(gain)
    # Less the bin's own, so that rounding never makes a width negative.
    start, before = np.append(0.0, end[:-1]), np.append(0.0, found[:-1])
    width = np.clip(np.minimum(end, limit) - start, 0.0, None)
    top = before + gain * np.divide(width, wide, out=np.zeros_like(width), where=wide > 0)
    return float(np.sum(width * (before + top) / 2) / limit)
