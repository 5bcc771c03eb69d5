"""A fitted threshold keeps its promise on images that nothing had seen."""

from __future__ import annotations

import numpy as np
import pytest

from orinspect_edge_runtime.cross_fit import FEWEST_TO_HALVE
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.features import Features, score_features
from orinspect_edge_runtime.fit import fit_features
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.scorers import SCORERS

DIM, PATCHES, PATCH_DIM = 30, 4, 6


def draw(rng: np.random.Generator, count: int) -> Features:
    """Good images whose dimensions vary together, with a tail heavier than a Gaussian's."""
    mixing = np.random.default_rng(5).standard_normal((DIM, DIM))
    embedding = rng.standard_t(6, (count, DIM)) @ mixing
    patches = rng.standard_t(6, (count, PATCHES, PATCH_DIM))
    return Features(embedding.astype(np.float32), patches.astype(np.float32))


def observed(scorer: str, images: int, asked: float, resamples: int) -> float:
    """Share of fresh good images above the threshold, over many fits."""
    rates = []
    for seed in range(resamples):
        rng = np.random.default_rng(seed)
        fitted = fit_features(draw(rng, images), FitOptions(scorer, false_alarm=asked, groups=1, seed=seed))
        scores, _ = score_features(SCORERS[scorer], fitted.arrays, draw(rng, 300))
        rates.append(float((scores > fitted.threshold.value).mean()))
    return float(np.mean(rates))


@pytest.mark.parametrize("scorer", sorted(SCORERS))
def test_the_rate_promised_is_the_rate_observed(scorer: str) -> None:
    """Uncorrected for the folds' smaller models it is .056 for mahalanobis, .073 for knn, .079 for patchcore."""
    assert 0.08 <= observed(scorer, 59, 0.1, 60) <= 0.11


def test_few_images_are_not_halved() -> None:
    rng = np.random.default_rng(0)
    few = fit_features(draw(rng, FEWEST_TO_HALVE - 1), FitOptions("mahalanobis", groups=1))
    enough = fit_features(draw(rng, FEWEST_TO_HALVE), FitOptions("mahalanobis", groups=1))
    # Calibration scores have mean 0, so the offset is the mean of the raw ones unless it was corrected.
    assert few.calibration.mean() == pytest.approx(0, abs=1e-5)
    assert enough.calibration.mean() == pytest.approx(0, abs=1e-5)
    for fitted, lower in ((few, False), (enough, True)):
        scores, _ = score_features(SCORERS["mahalanobis"], fitted.arrays, draw(rng, 2000))
        assert (scores.mean() > -0.3) == lower


def test_a_tail_reaches_beyond_what_the_images_can_promise() -> None:
    features = draw(np.random.default_rng(0), 60)
    plain = fit_features(features, FitOptions("knn", false_alarm=0.001, groups=1))
    tail = fit_features(features, FitOptions("knn", false_alarm=0.001, groups=1, threshold="tail"))
    assert not plain.threshold.kept and plain.threshold.value == plain.calibration.max()
    assert tail.threshold.extrapolated and tail.threshold.value >= plain.threshold.value
    assert "an estimate" in tail.threshold.note and "60 good images cannot promise 0.10%" in tail.threshold.note
    kept = fit_features(features, FitOptions("knn", false_alarm=0.1, groups=1, threshold="tail"))
    assert kept.threshold.kept and not kept.threshold.extrapolated


def test_an_unknown_threshold_and_too_few_images_for_a_tail() -> None:
    with pytest.raises(InputError, match="use one of conformal, tail"):
        FitOptions(threshold="best")
    with pytest.raises(InputError, match="add images"):
        fit_features(draw(np.random.default_rng(0), 30), FitOptions("knn", groups=1, threshold="tail"))


@pytest.mark.parametrize("threshold", ["conformal", "tail"])
def test_images_all_alike_never_alarm_by_the_conformal_threshold(threshold: str) -> None:
    same = Features(np.ones((60, DIM), np.float32), np.ones((60, PATCHES, PATCH_DIM), np.float32))
    options = FitOptions("mahalanobis", false_alarm=0.001, groups=1, threshold=threshold)
    if threshold == "tail":
        with pytest.raises(InputError, match="all alike: a tail cannot be fitted"):
            fit_features(same, options)
    else:
        fitted = fit_features(same, options)
        scores, _ = score_features(SCORERS["mahalanobis"], fitted.arrays, same)
        assert (scores <= fitted.threshold.value).all()
