"""Percentiles of the times of one precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Rounds of one precision, in order; each holds the milliseconds of its calls.
Rounds = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Latency:
    """Of one precision, milliseconds a call with `batch` frames. ratio_p50: fp32's p50 over this one's, same run.

    frames_per_second: of the calls alone, one after the other; of the server scenario the rate that it kept up.
    """

    precision: str
    batch: int
    runs: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    least_ms: float
    mean_ms: float
    frames_per_second: float
    ratio_p50: float | None
    runs_on: str


def all_times(rounds: Rounds) -> NDArray[np.float64]:
    """The times of all rounds in one array, ms."""
    return np.array([value for values in rounds for value in values], np.float64)


def summarize(
    precision: str, times: Mapping[str, Rounds], batch: int, runs_on: str, frames_per_second: float | None = None
) -> Latency:
    """Percentiles (linear interpolation, as numpy's) of one precision out of the times of all."""
    values = all_times(times[precision])
    p50, p90, p99 = (float(np.percentile(values, q)) for q in (50, 90, 99))
    return Latency(
        precision=precision,
        batch=batch,
        runs=len(values),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        least_ms=float(values.min()),
        mean_ms=float(values.mean()),
        frames_per_second=frames_per_second or batch * 1e3 / float(values.mean()),
        ratio_p50=float(np.median(all_times(times["fp32"]))) / p50 if "fp32" in times else None,
        runs_on=runs_on,
    )
