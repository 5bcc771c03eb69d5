"""Effects of layers on the score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orinspect_export.graph import EncoderGraph
from orinspect_export.int8 import Quantiser
from orinspect_export.sensitivity import _change, score_effects


def test_a_few_far_distances_do_not_hide_the_order_of_the_rest() -> None:
    before = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    after = before + np.float32(0.1)
    assert _change(before, after) == pytest.approx(0.1, rel=0.05)
    far = before.copy()
    far[0] = 1e4
    assert _change(far, far + np.float32(0.1)) == pytest.approx(0.1, rel=0.05)


def test_a_layer_that_is_not_lowered_has_no_effect_and_the_largest_comes_first(
    resnet: EncoderGraph, frames: Any
) -> None:
    quantiser = Quantiser(resnet.model, frames[:16])
    layers = quantiser.layers[:3]

    def alone(layer: str) -> Any:
        lowered = set() if layer == layers[1] else {layer}
        return quantiser.build([name for name in quantiser.layers if name not in lowered])

    effects = score_effects(resnet.model, layers, alone, frames)
    assert set(effects) == set(layers)
    assert effects[layers[1]] == 0
    assert min(effects[layers[0]], effects[layers[2]]) > 1e-4
    assert list(effects.values()) == sorted(effects.values(), reverse=True)
