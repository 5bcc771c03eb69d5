"""Fit the coefficients of the roofline to published latencies: Levenberg-Marquardt on logarithms, with priors.

Robust (Huber weights) because published numbers contain mistakes, and regularised by the priors of roofline.PRIORS
because a few dozen rows from a few families do not determine every efficiency.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from orinspect_jetson.predictor.operating_point import OperatingPoint
from orinspect_jetson.predictor.roofline import NAMES, PRIORS, Floats, Load, Work, load_of, totals

SPREAD = 0.12
HUBER = 1.5
ROUNDS = 25
STEP = 1e-4


@dataclass(frozen=True)
class Sample:
    """A published latency with the work behind it. weight: 1 for the only row of its cell, less for replicates."""

    work: Work
    point: OperatingPoint
    harness: str
    latency_ms: float
    weight: float = 1.0


def prior() -> Floats:
    """The coefficients before any row was seen, in the order of roofline.NAMES."""
    return np.array([PRIORS[name][0] for name in NAMES])


def load_samples(samples: Sequence[Sample]) -> Load:
    """The samples end to end, for roofline.totals."""
    return load_of([s.work for s in samples], [s.point for s in samples], [s.harness for s in samples])


def log_ratio(samples: Sequence[Sample], values: Floats) -> Floats:
    """ln(predicted / published) of every sample."""
    published = np.array([s.latency_ms for s in samples])
    ratio: Floats = np.log(totals(load_samples(samples), values) / published)
    return ratio


def fit(samples: Sequence[Sample]) -> Floats:
    """Coefficients in the order of roofline.NAMES; the prior ones without samples."""
    if not samples:
        return prior()
    start = np.log(prior())
    sigma = np.array([PRIORS[name][1] for name in NAMES])
    weight = np.sqrt(np.array([s.weight for s in samples])) / SPREAD
    load, published = load_samples(samples), np.log(np.array([s.latency_ms for s in samples]))

    def residuals(logs: Floats) -> Floats:
        rows: Floats = (np.log(totals(load, np.exp(logs))) - published) * weight
        return np.concatenate([rows * np.sqrt(_huber(rows)), (logs - start) / sigma])

    return np.exp(_minimise(residuals, start))


def _huber(rows: Floats) -> Floats:
    """Weights that let a row beyond HUBER spreads pull linearly instead of quadratically."""
    size = np.maximum(np.abs(rows), 1e-12)
    return np.where(size <= HUBER, 1.0, (2 * HUBER * size - HUBER**2) / size**2)


def _minimise(residuals: Callable[[Floats], Floats], start: Floats) -> Floats:
    now, damping = start, 1e-2
    here = residuals(now)
    for _ in range(ROUNDS):
        columns = [(residuals(now + STEP * unit) - here) / STEP for unit in np.eye(len(now))]
        slope = np.stack(columns, axis=1)
        normal, pull = slope.T @ slope, slope.T @ here
        move = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -pull)
        there = residuals(now + move)
        if there @ there < here @ here:
            gain = here @ here - there @ there
            now, here, damping = now + move, there, damping / 5
            if gain < 1e-6 * (here @ here):
                break
        else:
            damping *= 5
    return now
