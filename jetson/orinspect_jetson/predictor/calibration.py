"""How far the predictor is off on what it was not fitted to, and the interval that follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from orinspect_jetson.predictor.fitting import fit, log_ratio
from orinspect_jetson.predictor.published import Row
from orinspect_jetson.predictor.roofline import Floats

COVERAGE = 0.9
# What is known of a network: its family was among the fitted rows (on whatever board), or it was not.
KNOWN, NEW = "known family", "new family"


def held_out(rows: Sequence[Row], key: Callable[[Row], Hashable]) -> Floats:
    """ln(predicted / published) of every row by a fit to the rows with another key (leave one group out)."""
    samples = [row.sample() for row in rows]
    keys = [key(row) for row in rows]
    errors = np.full(len(rows), np.nan)
    for held in dict.fromkeys(keys):
        train = [s for s, k in zip(samples, keys, strict=True) if k != held]
        test = [i for i, k in enumerate(keys) if k == held]
        errors[test] = log_ratio([samples[i] for i in test], fit(train))
    return errors


def interval_factors(rows: Sequence[Row]) -> dict[str, float]:
    """By what the prediction is multiplied and divided for a 90 % interval, from leave-one-family-out errors.

    A new family: every family weighs the same, however many rows it has, and the quantile carries the conformal
    correction for their small number. A known family: every row weighs the same.
    """
    errors = np.abs(held_out(rows, lambda row: row.family))
    sizes = Counter(row.family for row in rows)
    balanced = np.array([1 / sizes[row.family] for row in rows])
    corrected = min(COVERAGE * (1 + 1 / len(sizes)), 1.0)
    return {
        NEW: float(np.exp(_quantile(errors, balanced, corrected))),
        KNOWN: float(np.exp(_quantile(errors, np.ones(len(rows)), min(COVERAGE * (1 + 1 / len(rows)), 1.0)))),
    }


def _quantile(values: Floats, weights: Floats, share: float) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    first = min(int(np.searchsorted(reached, share - 1e-9)), len(values) - 1)
    return float(values[order][first])
