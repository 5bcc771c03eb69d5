"""Is one run slower than another? The ratio of their medians, with an interval that knows that calls are not independent.

Consecutive calls share the machine's mood, so they are resampled in blocks of rounds (a block bootstrap), and the
interval is widened for blocks that still resemble their neighbours and for there being few of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.bench.latency import Rounds

MOST_BLOCKS = 20
LEAST_BLOCKS = 5
RESAMPLES = 2000
NORMAL_95 = 1.959964
MOST_CORRELATION = 0.9
LEAST_MS = 1e-3


@dataclass(frozen=True)
class Comparison:
    """ratio: median time here over median time there; low and high: its 95 % interval. Above 1 is slower."""

    precision: str
    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """slower, faster, or no difference shown."""
        if self.low > 1:
            return "slower"
        return "faster" if self.high < 1 else "no difference shown"

    def exceeds(self, percent: float) -> bool:
        """Is it slower by more than that, by all of the interval?"""
        return self.low > 1 + percent / 100


def compare_times(precision: str, here: Rounds, there: Rounds, seed: int = 0) -> Comparison:
    """Compare two runs of one precision. Each needs LEAST_BLOCKS rounds for an interval."""
    rng = np.random.default_rng(seed)
    ours, theirs = _log_median(here, rng), _log_median(there, rng)
    difference = ours.value - theirs.value
    variances = np.array([ours.variance, theirs.variance])
    freedom = np.array([ours.blocks, theirs.blocks]) - 1
    total = float(variances.sum())
    # Welch: the blocks of the noisier run count for most of the degrees of freedom.
    welch = total**2 / float((variances**2 / freedom).sum()) if total > 0 else float(freedom.sum())
    half = student_95(welch) * math.sqrt(total)
    return Comparison(precision, math.exp(difference), math.exp(difference - half), math.exp(difference + half))


def student_95(freedom: float) -> float:
    """The 97.5 % quantile of Student's t (Abramowitz and Stegun 26.7.5); within 0.5 % from 4 degrees of freedom on."""
    z = NORMAL_95
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))


@dataclass(frozen=True)
class _Median:
    value: float
    variance: float
    blocks: int


def _log_median(rounds: Rounds, rng: np.random.Generator) -> _Median:
    """Logarithm of the median with its variance by the bootstrap over blocks."""
    blocks = _blocks(rounds)
    values = np.log(np.concatenate(blocks))
    size = min(len(block) for block in blocks)
    # Blocks of one length make the bootstrap a table look-up; a longer last one loses what is over.
    table = np.log(np.stack([block[:size] for block in blocks]))
    chosen = rng.integers(0, len(blocks), (RESAMPLES, len(blocks)))
    medians = np.median(table[chosen].reshape(RESAMPLES, -1), axis=1)
    few = len(blocks) / (len(blocks) - 1)
    variance = float(medians.var()) * few * _inflation(np.median(table, axis=1))
    return _Median(float(np.median(values)), variance, len(blocks))


def _blocks(rounds: Rounds) -> list[NDArray[np.float64]]:
    """At most MOST_BLOCKS blocks of consecutive rounds: the longer a block, the less it knows of the next."""
    count = min(len(rounds), MOST_BLOCKS)
    size = len(rounds) // count
    starts = [size * number for number in range(count)]
    ends = [*starts[1:], len(rounds)]
    parts = [
        np.concatenate([np.asarray(r, np.float64) for r in rounds[a:b]]) for a, b in zip(starts, ends, strict=True)
    ]
    # Times are stored in whole microseconds; none of them is nothing.
    return [np.maximum(part, LEAST_MS) for part in parts]


def _inflation(medians: NDArray[np.float64]) -> float:
    """By how much the likeness of neighbouring blocks raises the variance of their mean (of a first-order process)."""
    centred = medians - medians.mean()
    total = float((centred**2).sum())
    if total == 0:
        return 1.0
    correlation = float((centred[1:] * centred[:-1]).sum()) / total
    # The estimate is too low by about (1 + 4 r) / n for n values.
    correlation += (1 + 4 * correlation) / len(medians)
    correlation = min(max(correlation, 0.0), MOST_CORRELATION)
    return (1 + correlation) / (1 - correlation)
