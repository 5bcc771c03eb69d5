"""Agreement of a precision's decisions with float32's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orinspect_export.decisions import (
    Agreement,
    Budget,
    Judge,
    cross_scores,
    embedding_distances,
    with_pasted_patches,
    worse,
)
from orinspect_export.fp16 import to_fp16
from orinspect_export.graph import EncoderGraph
from orinspect_export.int8 import Quantiser

GOOD = Agreement(0.9995, 0.0, 0.01, 0.9999, 200)


@pytest.mark.parametrize(
    ("change", "met"),
    [
        ({}, True),
        ({"score_rank_correlation": 0.9989}, False),
        ({"score_rank_correlation": None}, False),
        ({"verdict_flips": 0.01}, True),
        ({"verdict_flips": 0.015}, False),
        ({"least_cosine": 0.9}, True),
        ({"auroc": 0.9, "auroc_drop": 0.21}, False),
        ({"auroc": 0.9, "auroc_drop": 0.19, "score_rank_correlation": 0.9}, True),
        ({"auroc": 0.9, "auroc_drop": -3.0}, True),
        ({"images": 10, "score_rank_correlation": 0.9879}, True),
        ({"images": 10, "score_rank_correlation": 0.97}, False),
    ],
)
def test_the_budget_is_kept_or_not(change: dict[str, Any], met: bool) -> None:
    fields = vars(GOOD) | change
    assert Agreement(**fields).within(Budget()) is met


def test_the_worse_figure_of_each_kind_counts() -> None:
    other = Agreement(0.99, 0.0, 0.005, 0.9, 200)
    assert worse(GOOD, other) == Agreement(0.99, 0.0, 0.01, 0.9, 200)
    assert worse(GOOD, Agreement(None, 0.1, 0.0, 1.0, 200)).score_rank_correlation is None


def test_a_graph_agrees_with_itself(resnet: EncoderGraph, frames: Any) -> None:
    found = Judge(resnet.model, frames).agreement(resnet.model)
    assert found.score_rank_correlation == pytest.approx(1)
    assert (found.verdict_flips, found.score_difference_sd, found.images) == (0, 0, 2 * len(frames))


def test_coarser_graphs_agree_less(resnet: EncoderGraph, frames: Any) -> None:
    judge = Judge(resnet.model, frames)
    half = judge.agreement(to_fp16(resnet.model))
    rounded = judge.agreement(Quantiser(resnet.model, frames[:12]).build())
    assert half.score_difference_sd < 0.2 * rounded.score_difference_sd
    assert half.least_cosine > rounded.least_cosine


def test_labels_bring_an_auroc(resnet: EncoderGraph, frames: Any) -> None:
    labels = np.arange(16) >= 8
    labelled = np.concatenate([frames[16:24], with_pasted_patches(255 - frames[24:32])])
    judge = Judge(resnet.model, labelled, labels=labels, known=frames[:16])
    found = judge.agreement(resnet.model)
    assert found.auroc_drop == 0
    assert found.auroc is not None
    assert 0 <= found.auroc <= 1


def test_an_image_is_never_scored_by_itself() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((10, 4)).astype(np.float32)
    scores = cross_scores(np.concatenate([features, features]), embedding_distances)
    assert scores.shape == (20,)
    assert scores.min() > 0
    np.testing.assert_array_equal(scores[:10], scores[10:])
    exact = [np.linalg.norm(features[5:] - one, axis=1).min() for one in features[:5]]
    np.testing.assert_allclose(scores[:5], exact, rtol=1e-6)


def test_pasted_patches_change_a_part(frames: Any) -> None:
    changed = (with_pasted_patches(frames) != frames).any(axis=3).mean(axis=(1, 2))
    assert changed.max() < 0.3 * 0.3 + 0.01
    assert changed.min() > 0
    np.testing.assert_array_equal(with_pasted_patches(frames), with_pasted_patches(frames))
