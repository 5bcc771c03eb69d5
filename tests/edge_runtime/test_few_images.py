"""Recipes of very few good images: they work, and promise no more than the images carry."""

from __future__ import annotations

import numpy as np
import pytest

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.features import Features, score_features
from orinspect_edge_runtime.fit import fit_features
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.scorers import SCORERS


def features(count: int, seed: int, *, defective: bool = False) -> Features:
    rng = np.random.default_rng(seed)
    patches = rng.standard_normal((count, 16, 6)).astype(np.float32) + np.arange(16, dtype=np.float32)[:, None] % 4
    if defective:
        patches[:, 5] += 8
    return Features(np.concatenate([patches.mean(axis=1), patches.max(axis=1)], axis=1), patches)


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_a_handful_is_enough_to_find_a_plain_defect(scorer: str, count: int) -> None:
    fitted = fit_features(features(count, 0), FitOptions(scorer=scorer, groups=1))
    assert np.isfinite(fitted.calibration).all() and np.ptp(fitted.calibration) < 100
    good, _ = score_features(SCORERS[scorer], fitted.arrays, features(20, 1))
    bad, _ = score_features(SCORERS[scorer], fitted.arrays, features(20, 2, defective=True))
    assert np.median(bad) > np.median(good)
    assert np.isfinite(good).all() and np.isfinite(bad).all()


@pytest.mark.parametrize(("count", "best"), [(2, "33.33%"), (4, "20.00%"), (8, "11.11%")])
def test_the_promise_is_the_one_that_the_images_carry(count: int, best: str) -> None:
    threshold = fit_features(features(count, 0), FitOptions(false_alarm=0.01, groups=1)).threshold
    assert not threshold.kept
    assert f"{count} good images cannot promise 1.00% false alarms: the best is {best}" in threshold.note
    assert ("each image judged by the others" in threshold.note) == (count <= 5)


def test_two_images_that_score_nearly_alike_do_not_blow_up_the_scale() -> None:
    few = features(1, 0)
    pair = Features(np.repeat(few.embedding, 2, 0), np.repeat(few.patches, 2, 0) + np.float32([[[0]], [[1e-3]]]))
    fitted = fit_features(pair, FitOptions(groups=1))
    scores, _ = score_features(SCORERS["patchcore"], fitted.arrays, pair)
    assert np.abs(scores).max() < 1e4


def test_one_image_says_nothing_of_how_good_parts_differ() -> None:
    with pytest.raises(InputError, match="1 good image: how good parts differ cannot be seen from that"):
        fit_features(features(1, 0), FitOptions())
