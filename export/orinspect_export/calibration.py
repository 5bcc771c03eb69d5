"""Calibration: how far each activation reaches, so that INT8 can share out its 255 steps.

Four calibrators choose the range from a histogram of magnitudes (Wu et al. 2020, arXiv 2004.09602, section 4): the
largest one seen, a percentile, the least Kullback-Leibler divergence, the least squared error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orinspect_export.activations import Frames, activation_values

if TYPE_CHECKING:
    import onnx

BINS = 2048
# Int8 steps on each side of zero; -128 is left unused so that the range is symmetric.
STEPS = 127
PERCENTILE = 99.99
# Entropy and squared error try this many ranges.
TRIED = 128
Histogram = NDArray[np.int64]
Doubles = NDArray[np.float64]


def activation_ranges(
    model: onnx.ModelProto, tensors: list[str], frames: Frames, calibrator: str = "mse"
) -> dict[str, float]:
    """Largest magnitude to represent of every named activation, in its own unit; larger ones are cut off.

    frames: uint8 [N, H, W, 3]. calibrator: of CALIBRATORS. Two passes, one frame at a time: the
    largest magnitude, then a histogram below it, so memory holds the activations of one frame.
    """
    largest = dict.fromkeys(tensors, 0.0)
    for values in activation_values(model, tensors, frames):
        for name, value in values.items():
            largest[name] = max(largest[name], float(np.abs(value).max(initial=0.0)))
    histograms = {name: np.zeros(BINS, np.int64) for name in tensors}
    for values in activation_values(model, tensors, frames):
        for name, value in values.items():
            histograms[name] += magnitude_histogram(value, largest[name])
    choose = CALIBRATORS[calibrator]
    return {name: choose(histograms[name], largest[name]) for name in tensors}


def magnitude_histogram(values: NDArray[np.float32], largest: float) -> Histogram:
    """Counts int64 [BINS] of the magnitudes, from zero to `largest`."""
    places = (np.abs(values).ravel() * (BINS / max(largest, 1e-30))).astype(np.int32)
    return np.bincount(np.minimum(places, BINS - 1), minlength=BINS)


def percentile_range(histogram: Histogram, largest: float) -> float:
    """The magnitude that 99.99 % of the values stay below; `largest` is the upper end of the histogram."""
    total = int(histogram.sum())
    if total == 0:
        return largest
    place = int(np.searchsorted(np.cumsum(histogram), PERCENTILE / 100 * total))
    return largest * min(place + 1, BINS) / BINS


def largest_range(histogram: Histogram, largest: float) -> float:
    """The largest magnitude seen: nothing is cut off, and one outlier coarsens the steps of all."""
    return largest


def squared_error_range(histogram: Histogram, largest: float) -> float:
    """The range with the least mean squared error of rounding (inside) and cutting off (outside)."""
    return _best_range(histogram, largest, _squared_error, 8)


def entropy_range(histogram: Histogram, largest: float) -> float:
    """The range whose rounded histogram diverges least from the real one (Kullback-Leibler), as TensorRT's calibrator."""
    # After a ReLU most values are 0, which every range can say: as NVIDIA's own calibrators do, count as many as next to it.
    flat = histogram.copy()
    flat[0] = flat[1]
    return _best_range(flat, largest, _divergence, STEPS + 1)


CALIBRATORS: dict[str, Callable[[Histogram, float], float]] = {
    "min-max": largest_range,
    "percentile": percentile_range,
    "entropy": entropy_range,
    "mse": squared_error_range,
}


def _best_range(histogram: Histogram, largest: float, loss: Callable[[Histogram, int], float], narrowest: int) -> float:
    """The upper end of the bins [0, n) of least loss, over several n from `narrowest` on."""
    if not histogram.any():
        return largest
    ends = np.unique(np.geomspace(narrowest, BINS, TRIED).astype(int))
    losses = [loss(histogram, int(end)) for end in ends]
    return largest * int(ends[int(np.argmin(losses))]) / BINS


def _squared_error(histogram: Histogram, end: int) -> float:
    """Sum of squared errors in units of bins when the bins [0, end) share the steps: a step's square / 12 inside."""
    beyond = np.arange(end, BINS) + 0.5 - end
    return float(histogram[:end].sum() * (end / STEPS) ** 2 / 12 + (histogram[end:] * beyond**2).sum())


def _divergence(histogram: Histogram, end: int) -> float:
    """Kullback-Leibler divergence of the histogram, cut off at `end`, from itself in as many levels as INT8 has."""
    real: Doubles = histogram[:end].astype(np.float64)
    level = np.arange(end) * (STEPS + 1) // end
    filled = np.bincount(level, weights=real > 0, minlength=STEPS + 1)
    mean = np.bincount(level, weights=real, minlength=STEPS + 1) / np.maximum(filled, 1)
    rounded = np.where(real > 0, mean[level], 0.0)
    real[-1] += histogram[end:].sum()
    p, q = real / real.sum(), rounded / max(rounded.sum(), 1e-30)
    inside = p > 0
    return float((p[inside] * np.log(p[inside] / np.maximum(q[inside], 1e-12))).sum())
