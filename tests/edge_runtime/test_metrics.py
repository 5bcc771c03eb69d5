"""Metrics equal scikit-learn's to 1e-9, ties included; AUPRO equals a plain loop over thresholds."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from orinspect_edge_runtime import metrics
from orinspect_edge_runtime.errors import InputError


def labelled(seed: int, count: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of both classes and scores that lean the right way; few `steps` make many ties, 0 makes none."""
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.4
    labels[:2] = [True, False]
    scores = rng.standard_normal(count) + labels
    return labels, np.round(scores * steps) / steps if steps else scores


CASES = st.tuples(st.integers(0, 100_000), st.integers(2, 80), st.sampled_from([0, 1, 2, 5]))


@settings(max_examples=150, deadline=None)
@given(CASES)
def test_image_metrics_equal_the_reference(case: tuple[int, int, int]) -> None:
    labels, scores = labelled(*case)
    precision, recall, _ = reference.precision_recall_curve(labels, scores)
    fpr, tpr, thresholds = reference.roc_curve(labels, scores, drop_intermediate=False)
    f1 = max(2 * p * r / (p + r) for p, r in zip(precision, recall, strict=True) if p + r > 0)
    assert metrics.auroc(labels, scores) == pytest.approx(reference.roc_auc_score(labels, scores), abs=1e-9)
    assert metrics.average_precision(labels, scores) == pytest.approx(
        reference.average_precision_score(labels, scores), abs=1e-9
    )
    assert metrics.f1_max(labels, scores) == pytest.approx(f1, abs=1e-9)
    assert metrics.fpr_at_tpr(labels, scores) == pytest.approx(fpr[tpr >= 0.95].min(), abs=1e-9)
    for ours, theirs in zip(metrics.roc_curve(labels, scores), (fpr, tpr, thresholds), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, bool])
def test_kinds_of_number(dtype: type) -> None:
    labels = np.array([0, 1, 0, 1, 1])
    scores = np.array([0, 1, 1, 1, 0]).astype(dtype)
    assert metrics.auroc(labels, scores) == pytest.approx(reference.roc_auc_score(labels, scores), abs=1e-12)


def test_scores_without_information() -> None:
    labels, scores = np.array([0, 1, 1, 0]), np.full(4, 3.0)
    assert metrics.auroc(labels, scores) == 0.5
    assert metrics.average_precision(labels, scores) == 0.5
    assert metrics.f1_max(labels, scores) == pytest.approx(2 / 3)
    assert metrics.fpr_at_tpr(labels, scores) == 1.0


METRICS = [metrics.auroc, metrics.average_precision, metrics.f1_max, metrics.fpr_at_tpr, metrics.roc_curve]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("labels", "scores", "text"),
    [
        ([0, 0], [1.0, 2.0], "2 good and 0 defective images"),
        ([1, 1, 1], [1.0, 2.0, 3.0], "0 good and 3 defective images"),
        ([], [], "0 good and 0 defective images"),
        ([0, 1], [1.0, np.nan], "not finite"),
        ([0, 1], [1.0, np.inf], "not finite"),
        ([0, 2], [1.0, 2.0], "label"),
        ([0, 1], [1.0, 2.0, 3.0], "one length"),
        ([[0, 1]], [[1.0, 2.0]], "two lists"),
    ],
)
def test_what_no_metric_can_be_computed_from(metric: metrics.Metric, labels: list, scores: list, text: str) -> None:
    with pytest.raises(InputError, match=text):
        metric(np.array(labels), np.array(scores))


def test_a_true_positive_rate_out_of_range() -> None:
    with pytest.raises(InputError, match="true-positive rate"):
        metrics.fpr_at_tpr(np.array([0, 1]), np.array([0.0, 1.0]), 0.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=40))
def test_spearman_is_the_correlation_of_mid_ranks(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, float).T

    def ranks(x: np.ndarray) -> np.ndarray:
        return np.array([(x < v).sum() + ((x == v).sum() + 1) / 2 for v in x])

    found = metrics.spearman(a, b)
    if a.std() == 0 or b.std() == 0:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(np.corrcoef(ranks(a), ranks(b))[0, 1], abs=1e-9)


@pytest.mark.parametrize("pair", [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([1.0, np.nan], [1.0, 2.0])])
def test_series_without_a_rank_correlation(pair: tuple[list[float], list[float]]) -> None:
    with pytest.raises(InputError):
        metrics.spearman(np.array(pair[0]), np.array(pair[1]))


def test_bootstrap_interval_covers_the_truth_as_often_as_said() -> None:
    # Normal scores one standard deviation apart have the AUROC Phi(1 / sqrt 2).
    rng, truth, covered = np.random.default_rng(0), 0.7602499389065233, 0
    labels = np.arange(120) < 50
    for seed in range(100):
        scores = rng.standard_normal(120) + labels
        ((low, high),) = metrics.bootstrap_intervals([metrics.auroc], labels, scores, rounds=100, seed=seed)
        covered += low <= truth <= high
    assert 0.86 <= covered / 100 <= 0.99


def test_bootstrap_depends_on_the_seed_alone_and_widens_with_confidence() -> None:
    labels, scores = labelled(1, 60, 0)

    def interval(**options: Any) -> tuple[float, float]:
        return metrics.bootstrap_intervals([metrics.auroc], labels, scores, **options)[0]

    first, wide = interval(seed=3), interval(seed=3, confidence=0.99)
    assert first == interval(seed=3)
    assert first != interval(seed=4)
    assert wide[0] < first[0] < metrics.auroc(labels, scores) < first[1] < wide[1]
    with pytest.raises(InputError, match="bootstrap"):
        interval(rounds=0)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 30), st.sampled_from([0, 1, 3]))
def test_bootstrap_is_that_of_images_drawn_one_by_one(seed: int, count: int, steps: int) -> None:
    labels, scores = labelled(seed, count, steps)
    chosen = [metrics.average_precision, metrics.fpr_at_tpr, metrics.auroc, metrics.f1_max]
    rng, good, bad = np.random.default_rng(5), np.flatnonzero(~labels), np.flatnonzero(labels)
    drawn = []
    for _ in range(9):
        rows = np.concatenate([rng.choice(good, len(good)), rng.choice(bad, len(bad))])
        drawn.append([metric(labels[rows], scores[rows]) for metric in chosen])
    expected = np.quantile(drawn, [0.025, 0.975], axis=0).T
    found = metrics.bootstrap_intervals(chosen, labels, scores, rounds=9, seed=5)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def maps(seed: int, shape: tuple[int, int, int], steps: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = rng.random(shape) < 0.15
    masks.flat[:2] = [True, False]
    values = rng.standard_normal(shape) + 1.2 * masks
    return masks, (np.round(values * steps) / steps if steps else values).astype(np.float32)


def plain_aupro(masks: np.ndarray, values: np.ndarray, limit: float) -> float:
    """One threshold after the other, regions by flood fill, the trapezoid cut at the limit."""
    regions = []
    for image, mask in enumerate(masks):
        left = set(zip(*np.nonzero(mask), strict=True))
        while left:
            stack, found = [left.pop()], []
            while stack:
                y, x = stack.pop()
                found.append(values[image, y, x])
                near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
                left -= near
                stack += near
            regions.append(np.array(found))
    good = values[~masks]
    points = [(0.0, 0.0)]
    for threshold in np.unique(values)[::-1]:
        points.append(((good >= threshold).mean(), float(np.mean([(r >= threshold).mean() for r in regions]))))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 < limit and x1 > x0:
            cut = min(x1, limit)
            area += (cut - x0) * (y0 + y0 + (y1 - y0) * (cut - x0) / (x1 - x0)) / 2
    return area / limit


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0, 1, 3]), st.sampled_from([0.3, 0.05, 1.0, 0.001]))
def test_aupro_equals_a_plain_loop(seed: int, steps: int, limit: float) -> None:
    masks, values = maps(seed, (2, 7, 9), steps)
    assert metrics.aupro(masks, values, limit=limit) == pytest.approx(plain_aupro(masks, values, limit), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0, 1, 3]))
def test_pixel_auroc_equals_the_reference(seed: int, steps: int) -> None:
    masks, values = maps(seed, (3, 8, 6), steps)
    expected = reference.roc_auc_score(masks.ravel(), values.ravel())
    assert metrics.pixel_auroc(masks, values) == pytest.approx(expected, abs=1e-9)


def test_every_region_counts_alike_in_aupro() -> None:
    masks = np.zeros((1, 40, 40), bool)
    masks[0, :20, :20] = True
    masks[0, 30:32, 30:32] = True
    large, small = np.zeros((1, 40, 40)), np.zeros((1, 40, 40))
    large[0, :20, :20] = small[0, 30:32, 30:32] = 1.0
    assert metrics.aupro(masks, large) == pytest.approx(metrics.aupro(masks, small))
    assert metrics.pixel_auroc(masks, large) > metrics.pixel_auroc(masks, small) + 0.4
    assert metrics.aupro(masks, masks.astype(float)) == pytest.approx(1.0)


@pytest.mark.parametrize("metric", [metrics.pixel_auroc, metrics.aupro])
def test_maps_that_cannot_be_judged(metric: metrics.Metric) -> None:
    values = np.zeros((1, 3, 3))
    with pytest.raises(InputError, match="9 good and 0 defective pixels"):
        metric(np.zeros((1, 3, 3), bool), values)
    with pytest.raises(InputError, match="0 good and 9 defective pixels"):
        metric(np.ones((1, 3, 3), bool), values)
    with pytest.raises(InputError, match="must both be"):
        metric(np.zeros((1, 3, 3), bool), np.zeros((1, 3, 4)))
    with pytest.raises(InputError, match="not finite"):
        metric(np.eye(3, dtype=bool)[None], np.full((1, 3, 3), np.nan))


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.1])
def test_an_aupro_limit_out_of_range(limit: float) -> None:
    with pytest.raises(InputError, match="limit"):
        metrics.aupro(np.eye(3, dtype=bool)[None], np.zeros((1, 3, 3)), limit=limit)


def test_maps_in_bulk_are_fast() -> None:
    masks, values = maps(0, (50, 256, 256), 0)
    start = time.process_time()
    metrics.aupro(masks, values)
    metrics.pixel_auroc(masks, values)
    assert time.process_time() - start < 20
