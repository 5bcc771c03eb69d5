"""Ranges of activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from orinspect_export.calibration import (
    BINS,
    CALIBRATORS,
    STEPS,
    activation_ranges,
    entropy_range,
    magnitude_histogram,
    percentile_range,
)
from orinspect_export.graph import EncoderGraph

VALUES = hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-1e4, 1e4, width=32))


@given(values=VALUES)
def test_every_magnitude_is_counted_once(values: Any) -> None:
    histogram = magnitude_histogram(values, float(np.abs(values).max()))
    assert histogram.shape == (BINS,)
    assert histogram.sum() == len(values)


@given(values=VALUES)
def test_a_range_covers_all_but_one_in_ten_thousand(values: Any) -> None:
    largest = float(np.abs(values).max())
    limit = percentile_range(magnitude_histogram(values, largest), largest)
    assert 0 <= limit <= largest * (1 + 1e-6)
    assert (np.abs(values) > limit * (1 + 1e-5) + 1e-30).mean() <= 1e-4


def test_one_outlier_does_not_set_the_range() -> None:
    values = np.append(np.linspace(0, 1, 100_000), 50).astype(np.float32)
    assert percentile_range(magnitude_histogram(values, 50.0), 50.0) < 1.1


def test_nothing_counted_leaves_the_largest() -> None:
    assert percentile_range(np.zeros(BINS, np.int64), 3.0) == 3.0


def test_ranges_are_those_of_the_activations(resnet: EncoderGraph, frames: Any, run_graph: Callable[..., Any]) -> None:
    found = activation_ranges(resnet.model, ["embedding", "patches"], frames[:6])
    for name, limit in found.items():
        values = np.abs(np.concatenate([run_graph(resnet.model, frames=frame[None])[name] for frame in frames[:6]]))
        assert np.quantile(values, 0.999) <= limit <= values.max() * (1 + 1e-6)


@pytest.mark.parametrize("calibrator", sorted(CALIBRATORS))
@given(values=VALUES)
def test_no_calibrator_leaves_what_was_seen(calibrator: str, values: Any) -> None:
    largest = float(np.abs(values).max())
    limit = CALIBRATORS[calibrator](magnitude_histogram(values, largest), largest)
    assert largest / BINS * 0.99 <= limit <= largest * (1 + 1e-6)


def test_zeros_behind_a_relu_do_not_narrow_the_range_of_entropy() -> None:
    values = np.abs(np.random.default_rng(0).standard_normal(100_000)).astype(np.float32)
    largest = float(values.max())
    limits = [
        entropy_range(magnitude_histogram(np.append(values, np.zeros(zeros, np.float32)), largest), largest)
        for zeros in (0, 2_000_000)
    ]
    assert limits[1] == pytest.approx(limits[0], rel=0.05)
    assert limits[0] > 2


def rounding_error(values: Any, limit: float) -> float:
    step = limit / STEPS
    return float(((np.clip(np.round(values / step), -STEPS, STEPS) * step - values) ** 2).mean())


@pytest.mark.parametrize("seed", range(5))
def test_mse_beats_the_others_at_squared_error(seed: int) -> None:
    values = np.random.default_rng(seed).standard_t(3, 200_000).astype(np.float32)
    largest = float(np.abs(values).max())
    histogram = magnitude_histogram(values, largest)
    errors = {name: rounding_error(values, choose(histogram, largest)) for name, choose in CALIBRATORS.items()}
    assert errors["mse"] <= 1.02 * min(errors.values())
    assert errors["mse"] < 0.8 * errors["min-max"]


def test_entropy_cuts_off_a_far_outlier_and_keeps_a_full_range() -> None:
    rng = np.random.default_rng(0)
    normal = np.abs(rng.standard_normal(100_000)).astype(np.float32)
    with_outlier = magnitude_histogram(np.append(normal, np.float32(100)), 100.0)
    assert CALIBRATORS["entropy"](with_outlier, 100.0) < 15
    flat = rng.uniform(0, 1, 100_000).astype(np.float32)
    assert CALIBRATORS["entropy"](magnitude_histogram(flat, 1.0), 1.0) > 0.95
