"""Magnitudes of real activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from planted_faults import scale_channel

from orinspect_export.activation_statistics import TensorStatistics, activation_statistics, half_threats
from orinspect_export.activations import activation_values
from orinspect_export.graph import EncoderGraph


def test_they_are_those_of_the_tensors(resnet: EncoderGraph, frames: Any) -> None:
    found = activation_statistics(resnet.model, frames[:4])
    assert {"embedding", "patches"} <= set(found)
    convolution = next(node for node in resnet.model.graph.node if node.op_type == "Conv").output[0]
    values = np.concatenate([v[convolution] for v in activation_values(resnet.model, [convolution], frames[:4])])
    channels = np.abs(values).max(axis=(0, 2, 3))
    statistics = found[convolution]
    assert statistics.largest == pytest.approx(channels.max())
    assert statistics.typical == pytest.approx(np.median(channels))
    assert statistics.channel == channels.argmax()
    tiny = (np.abs(values) > 0) & (np.abs(values) < np.finfo(np.float16).tiny)
    assert statistics.subnormal == pytest.approx(tiny.sum() / np.count_nonzero(values))


@pytest.mark.parametrize(
    ("largest", "threatens"), [(100.0, False), (16000.0, False), (17000.0, True), (np.inf, True), (np.nan, True)]
)
def test_room_is_left_below_the_largest_half(largest: float, threatens: bool) -> None:
    assert TensorStatistics(largest, 1.0, 0, 0.0).threatens_half is threatens


def test_outliers_are_channels_not_sizes() -> None:
    assert TensorStatistics(1000.0, 1.0, 0, 0.0).has_outlier
    assert not TensorStatistics(1000.0, 900.0, 0, 0.0).has_outlier
    assert not TensorStatistics(1000.0, 0.0, 0, 0.0).has_outlier, "dead channels are no measure"


def test_a_planted_fault_changes_nothing_in_float32_and_threatens_half(
    resnet: EncoderGraph, frames: Any, run_graph: Callable[..., Any]
) -> None:
    planted, victim = scale_channel(resnet.model, 1e6)
    exact, ours = (run_graph(model, frames=frames[:2])["embedding"] for model in (resnet.model, planted))
    np.testing.assert_allclose(ours, exact, rtol=1e-3, atol=1e-3)
    reasons = half_threats(planted, activation_statistics(planted, frames[:4]))
    assert victim in reasons
    assert not half_threats(resnet.model, activation_statistics(resnet.model, frames[:4]))
