"""Warm-up until the times settle: clocks rise, caches fill, CUDA graphs are captured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WINDOW_RUNS = 5
MOST_CHANGE = 0.02
# One small change may be luck; two in a row are taken for rest.
CALM_CHANGES = 2
MOST_WINDOWS = 40
MOST_SECONDS = 30.0


@dataclass(frozen=True)
class WarmUp:
    """runs: untimed calls. last_change: share by which the last window's median differed from the one before."""

    runs: int
    stable: bool
    last_change: float


def is_stable(medians: list[float]) -> bool:
    """Did the last CALM_CHANGES steps from window to window change the median by less than MOST_CHANGE each?"""
    return len(medians) > CALM_CHANGES and all(
        _change(a, b) < MOST_CHANGE for a, b in zip(medians[-CALM_CHANGES - 1 :], medians[-CALM_CHANGES:], strict=False)
    )


def warm_up(call: Callable[[], object], now: Callable[[], float] = time.perf_counter) -> WarmUp:
    """Call until stable, at most MOST_WINDOWS windows of WINDOW_RUNS calls or about MOST_SECONDS."""
    medians: list[float] = []
    start = now()
    while not is_stable(medians) and len(medians) < MOST_WINDOWS:
        if len(medians) > CALM_CHANGES and now() - start > MOST_SECONDS:
            break
        window = []
        for _ in range(WINDOW_RUNS):
            before = now()
            call()
            window.append(now() - before)
        medians.append(float(np.median(window)))
    return WarmUp(len(medians) * WINDOW_RUNS, is_stable(medians), _change(medians[-2], medians[-1]))


def _change(before: float, after: float) -> float:
    return abs(after - before) / before if before else 0.0
