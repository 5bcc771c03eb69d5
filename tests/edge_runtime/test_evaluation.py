"""Evaluation: metrics and shares of scored images, what is skipped, and a JSON form that reads back equal."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.dataset import read_dataset
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.evaluation import Evaluation, Review, ScoredImage, evaluate, from_json, summarise
from orinspect_edge_runtime.labelled import LabelledImage
from orinspect_edge_runtime.tiling import view_of

DETECTOR: Any = SimpleNamespace(
    recipe=SimpleNamespace(
        name="part", scorer="padim", precision="int8", threshold=1.0, promised_false_alarm=0.05, review_threshold=0.5
    )
)
SCORES = st.lists(st.tuples(st.booleans(), st.floats(-9, 9, width=32)), min_size=2, max_size=12)


def scored(*pairs: tuple[bool, float], kinds: tuple[str, ...] = ()) -> tuple[ScoredImage, ...]:
    """Images of (is defective, score); the threshold is 1."""
    names = kinds or tuple("bad" if defective else "good" for defective, _ in pairs)
    return tuple(
        ScoredImage(f"{number}.png", kind, defective, score, score > 1.0, 0)
        for number, (kind, (defective, score)) in enumerate(zip(names, pairs, strict=True))
    )


def test_shares_and_metrics_of_a_small_case() -> None:
    images = scored(
        (False, 0.0), (False, 2.0), (True, 1.5), (True, 3.0), (True, 0.5), kinds=("ok", "ok", "dent", "cut", "dent")
    )
    result = summarise(DETECTOR, images, ("x.png: text",))
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
    result = summarise(DETECTOR, scored(*pairs))
    good = [score for defective, score in pairs if not defective]
    bad = [score for defective, score in pairs if defective]
    wins = np.mean([(b > g) + (b == g) / 2 for b in bad for g in good])
    assert result.auroc == pytest.approx(wins)
    assert result.false_alarms == pytest.approx(np.mean([score > 1 for score in good]))
    assert from_json(json.loads(json.dumps(result.to_json()))) == result


def test_the_review_band_lies_between_the_thresholds() -> None:
    pairs = [(False, 0.0), (False, 0.5), (False, 0.6), (False, 1.1), (True, 0.4), (True, 1.0)]
    review = summarise(DETECTOR, scored(*pairs)).review
    assert review == Review(0.5, 0.25, 0.5)


@pytest.mark.parametrize("pairs", [[], [(False, 0.0)], [(True, 0.0), (True, 1.0)]])
def test_one_class_is_no_evaluation(pairs: list[tuple[bool, float]]) -> None:
    with pytest.raises(InputError) as caught:
        summarise(DETECTOR, scored(*pairs))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_an_error(score: float) -> None:
    with pytest.raises(InputError, match="not finite"):
        summarise(DETECTOR, scored((True, score), (False, 0.0), (True, 0.0)))


WHOLE = summarise(DETECTOR, scored((False, 0.0), (True, 2.0))).to_json()


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


@pytest.fixture
def fake_detector(fake_bundle: Bundle) -> Any:
    """Scores an image by its brightness."""

    class FakeDetector:
        bundle = fake_bundle
        view = view_of(None, fake_bundle.manifest)
        recipe = DETECTOR.recipe
        concurrency = 2

        def __call__(self, frame: Any) -> Any:
            score = float(frame.pixels.max()) / 100
            return SimpleNamespace(score=score, is_anomalous=score > 1.0, group=0)

    return FakeDetector()


def test_images_are_scored_in_order_with_progress(fake_detector: Any, pictures: Path) -> None:
    shares: list[float] = []
    images = read_dataset(pictures)
    result = evaluate(fake_detector, images, shares.append)
    assert [image.image for image in result.images] == [str(image.path) for image in images]
    assert result.auroc == 1.0
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] < 1


def test_unreadable_images_are_skipped_and_named_up_to_five_percent(
    fake_detector: Any, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_text("text")
    bad = LabelledImage(tmp_path / "bad.png", "blot", True)
    images = read_dataset(pictures) * 4
    result = evaluate(fake_detector, [*images, bad])
    assert len(result.images) == len(images)
    assert [str(tmp_path / "bad.png") in reason for reason in result.skipped] == [True]
    with pytest.raises(InputError, match=r"3 of 48 images cannot be used, which is over 5 %: .*bad\.png"):
        evaluate(fake_detector, [*images, *[bad] * 4])


def test_nothing_to_evaluate(fake_detector: Any) -> None:
    with pytest.raises(InputError):
        evaluate(fake_detector, [])


def test_a_real_detector(real_bundle: Path, pictures: Path, tiny_recipe: Callable[..., Any], tmp_path: Path) -> None:
    from shutil import copytree

    bundle = Bundle.open(copytree(real_bundle, tmp_path / "bundle"))
    digest = bundle.manifest.files["graphs/patchcore-fp32.onnx"].sha256
    bundle.add_recipe(tiny_recipe(graph_sha256=digest, threshold=0.9))
    with Detector.load(bundle.path) as detector:
        result = evaluate(detector, read_dataset(pictures))
    assert isinstance(result, Evaluation)
    assert result.auroc == 1.0
    assert dataclasses.replace(result, images=()) != result


def test_figures_by_kind_and_intervals() -> None:
    kinds = ("ok", "ok", "dent", "cut", "dent")
    pairs = ((False, 0.0), (False, 2.0), (True, 1.5), (True, 3.0), (True, 0.5))
    result = summarise(DETECTOR, scored(*pairs, kinds=kinds))
    assert result.auroc_by_kind == {"dent": 0.5, "cut": 1.0}
    assert result.localisation is None
    for name, (low, high) in result.intervals.items():
        assert low <= getattr(result, name) <= high


def test_masks_give_pixel_metrics(
    real_bundle: Path, pictures: Path, tiny_recipe: Callable[..., Any], tmp_path: Path
) -> None:
    from shutil import copytree

    from PIL import Image

    data, bundle = copytree(pictures, tmp_path / "data"), Bundle.open(copytree(real_bundle, tmp_path / "bundle"))
    mask = np.zeros((40, 36), np.uint8)
    mask[10:22, 12:24] = 255
    (data / "ground_truth/blot").mkdir(parents=True)
    for number in range(4):
        Image.fromarray(mask).save(data / f"ground_truth/blot/{number:02d}_mask.png")
    digest = bundle.manifest.files["graphs/patchcore-fp32.onnx"].sha256
    bundle.add_recipe(tiny_recipe(graph_sha256=digest))
    with Detector.load(bundle.path) as detector:
        result = evaluate(detector, read_dataset(data))
    assert result.localisation is not None
    assert result.localisation.masked_images == 4  # the fifth defective image has none
    assert result.localisation.pixel_auroc > 0.9
    assert set(result.localisation.aupro_30_by_kind) == {"blot"}
    assert from_json(json.loads(json.dumps(result.to_json()))) == result
