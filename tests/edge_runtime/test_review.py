"""Accept, review, reject: two thresholds out of two rates of false alarms."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.fit import fit_recipe
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.preprocess import Frame
from orinspect_edge_runtime.recipe_edit import forget_image, mark_good
from orinspect_edge_runtime.verdict import Verdict


def picture(seed: int) -> Frame:
    return Frame(np.random.default_rng(seed).integers(90, 110, (32, 32, 3), dtype=np.uint8), f"{seed}.png")


def verdict(score: float, review: float | None) -> Verdict:
    return Verdict(score, 2.0, score > 2.0, None, 0.5, 0, 1.0, np.zeros(0, np.float32), review)


OUTCOMES = {0: "accept", 1: "accept", 1.1: "review", 2: "review", 2.1: "reject"}


@pytest.mark.parametrize(
    ("score", "review", "outcome"),
    [*((score, 1.0, outcome) for score, outcome in OUTCOMES.items()), (2, None, "accept"), (2.1, None, "reject")],
)
def test_outcomes(score: float, review: float | None, outcome: str) -> None:
    assert verdict(score, review).outcome == outcome


@pytest.fixture
def bundle(real_bundle: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(real_bundle, tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    options = FitOptions(false_alarm=0.1, review_alarm=0.4, groups=1)
    return bundle.add_recipe(fit_recipe(bundle, [picture(n) for n in range(29)], "part", options))


def test_the_review_threshold_is_the_one_of_the_looser_rate(bundle: Bundle) -> None:
    recipe = bundle.recipe("part")
    # 30 places among 29 scores: 3 of them are a rate of 0.1, 12 of them one of 0.4.
    assert recipe.threshold == recipe.calibration_scores[29 - 3]
    assert recipe.review_threshold == recipe.calibration_scores[29 - 12]
    assert recipe.review_alarm == 0.4


def test_forgetting_an_image_finds_both_again_and_marking_one_leaves_no_review(bundle: Bundle) -> None:
    old = bundle.recipe("part")
    forget_image(bundle, "part", old.images[old.calibration_images[-1]])
    new = bundle.now().recipe("part")
    assert new.threshold == old.calibration_scores[28 - 2]
    assert new.review_threshold == old.calibration_scores[28 - 11]
    pixels = picture(90).pixels.copy()
    pixels[:8, :8] = 180
    edit = mark_good(bundle, "part", pixels)
    assert edit.score_after is not None and new.review_threshold is not None
    assert edit.score_after <= min(0.0, new.review_threshold)


@pytest.mark.parametrize("rate", [0.01, 0.005, 1.0, float("nan")])
def test_a_review_rate_must_be_looser_than_the_one_of_alarms(rate: float) -> None:
    with pytest.raises(InputError, match="--review-alarm"):
        FitOptions(false_alarm=0.01, review_alarm=rate)


def test_score_and_evaluate_tell_the_outcome(bundle: Bundle, pictures: Path, orinspect: Callable[..., Any]) -> None:
    rows = json.loads(orinspect("score", bundle.path, pictures / "test", "--json").out)
    assert {row["outcome"] for row in rows} <= {"accept", "review", "reject"}
    for row in rows:
        assert (row["outcome"] == "reject") == row["is_anomalous"]
    evaluated = orinspect("evaluate", bundle.path, pictures)
    assert evaluated.code == 0 and "review from" in evaluated.out
