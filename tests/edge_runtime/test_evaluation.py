"""Evaluation: metrics and shares of scored images, what is skipped, and a JSON form that reads back equal."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.evaluation import Review, from_json, summarise
from orinspect_edge_runtime.scored_images import ScoredImage, ScoredImages

RECIPE: Any = SimpleNamespace(
    name="part", scorer="padim", precision="int8", threshold=1.0, promised_false_alarm=0.05, review_threshold=0.5
)
SCORES = st.lists(st.tuples(st.booleans(), st.floats(-9, 9, width=32)), min_size=2, max_size=12)


def scored(*pairs: tuple[bool, float], kinds: tuple[str, ...] = ()) -> ScoredImages:
    """Images of (is defective, score); the threshold is 1."""
    names = kinds or tuple("bad" if defective else "good" for defective, _ in pairs)
    return ScoredImages.of(
        ScoredImage(f"{number}.png", kind, defective, score, score > 1.0, 0)
        for number, (kind, (defective, score)) in enumerate(zip(names, pairs, strict=True))
    )


def test_shares_and_metrics_of_a_small_case() -> None:
    images = scored(
        (False, 0.0), (False, 2.0), (True, 1.5), (True, 3.0), (True, 0.5), kinds=("ok", "ok", "dent", "cut", "dent")
    )
    result = summarise(RECIPE, images, ("x.png: text",))
    assert (result.recipe, result.scorer, result.precision, result.false_alarm_promised) == (
        "part",
        "padim",
        "int8",
        0.05,
    )
    assert (result.good_images, result.defective_images) == (2, 3)
    assert result.auroc == pytest.approx(4 / 6)
    assert result.false_alarms == 0.5
    assert result.detections == pytest.approx(2 / 3)
    assert result.detections_by_kind == {"dent": 0.5, "cut": 1.0}
    assert result.skipped == ("x.png: text",)
    assert result.auroc_interval[0] <= result.auroc <= result.auroc_interval[1]


@settings(max_examples=12)  # each computes a bootstrap
@given(SCORES)
def test_any_scores_of_both_classes(pairs: list[tuple[bool, float]]) -> None:
    assume(len({defective for defective, _ in pairs}) == 2)
    result = summarise(RECIPE, scored(*pairs))
    good = [score for defective, score in pairs if not defective]
    bad = [score for defective, score in pairs if defective]
    wins = np.mean([(b > g) + (b == g) / 2 for b in bad for g in good])
    assert result.auroc == pytest.approx(wins)
    assert result.false_alarms == pytest.approx(np.mean([score > 1 for score in good]))
    assert from_json(json.loads(json.dumps(result.to_json()))) == result


def test_the_review_band_lies_between_the_thresholds() -> None:
    pairs = [(False, 0.0), (False, 0.5), (False, 0.6), (False, 1.1), (True, 0.4), (True, 1.0)]
    review = summarise(RECIPE, scored(*pairs)).review
    assert review == Review(0.5, 0.25, 0.5)


@pytest.mark.parametrize("pairs", [[], [(False, 0.0)], [(True, 0.0), (True, 1.0)]])
def test_one_class_is_no_evaluation(pairs: list[tuple[bool, float]]) -> None:
    with pytest.raises(InputError) as caught:
        summarise(RECIPE, scored(*pairs))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_an_error(score: float) -> None:
    with pytest.raises(InputError, match="not finite"):
        summarise(RECIPE, scored((True, score), (False, 0.0), (True, 0.0)))


WHOLE = summarise(RECIPE, scored((False, 0.0), (True, 2.0))).to_json()


@pytest.mark.parametrize("name", [*WHOLE, "surprise"])
def test_json_of_another_version_is_refused(name: str) -> None:
    values = {key: value for key, value in WHOLE.items() if key != name}
    with pytest.raises(InputError, match="evaluate again"):
        from_json(values if name in WHOLE else values | {name: 1})


@pytest.mark.parametrize(
    "values", [[], None, "text", {"images": 1}, WHOLE | {"images": [{"image": "x"}]}, WHOLE | {"images": [3]}]
)
def test_other_json_is_refused(values: Any) -> None:
    with pytest.raises(InputError, match="not an evaluation"):
        from_json(values)


def test_figures_by_kind_and_intervals() -> None:
    kinds = ("ok", "ok", "dent", "cut", "dent")
    pairs = ((False, 0.0), (False, 2.0), (True, 1.5), (True, 3.0), (True, 0.5))
    result = summarise(RECIPE, scored(*pairs, kinds=kinds))
    assert result.auroc_by_kind == {"dent": 0.5, "cut": 1.0}
    assert result.localisation is None
    for name, (low, high) in result.intervals.items():
        assert low <= getattr(result, name) <= high
