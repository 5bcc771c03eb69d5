"""Figures of one precision's features against another's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orinspect_export.decisions import features_of
from orinspect_export.fp16 import to_fp16
from orinspect_export.graph import EncoderGraph
from orinspect_export.parity import compare


def test_a_graph_equals_itself(resnet: EncoderGraph, frames: Any) -> None:
    features = features_of(resnet.model, frames)
    figures = compare(features, features)
    assert figures.embedding_cosine_min == pytest.approx(1)
    assert figures.patch_cosine_min == pytest.approx(1)
    assert figures.patch_difference_max == 0
    assert figures.images == len(frames)


def test_half_precision_is_close_and_noise_is_not(resnet: EncoderGraph, frames: Any) -> None:
    exact = features_of(resnet.model, frames)
    half = compare(exact, features_of(to_fp16(resnet.model), frames))
    assert half.embedding_cosine_min > 0.999
    rng = np.random.default_rng(0)
    noisy = {name: (f + f.std() * rng.standard_normal(f.shape)).astype(np.float32) for name, f in exact.items()}
    bad = compare(exact, noisy)
    assert bad.embedding_cosine_mean < 0.95
    assert bad.patch_cosine_min < half.patch_cosine_min
    assert bad.patch_difference_max > 10 * half.patch_difference_max
