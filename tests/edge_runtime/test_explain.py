"""Explanations: the right place in the picture's own pixels, the right good patch, the right p-value."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.explain import _in_picture, explain, shown_above
from orinspect_edge_runtime.fit import fit_recipe
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.overlay import draw_overlay, outline
from orinspect_edge_runtime.preprocess import Frame, PreprocessSpec
from orinspect_edge_runtime.verdict import Verdict

SIDE, CELL = 32, 8


def picture(seed: int, *spots: tuple[int, int], brightness: int = 250, repeat: int = 1) -> Frame:
    """Good parts get brighter from left to right; a spot fills one patch."""
    pixels = (
        np.random.default_rng(seed).integers(90, 110, (SIDE, SIDE, 3)) + np.repeat(np.arange(4) * 20, 8)[None, :, None]
    )
    for row, column in spots:
        pixels[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = brightness
    return Frame(np.repeat(np.repeat(pixels.astype(np.uint8), repeat, 0), 2 * repeat, 1), f"{seed}.png")


@pytest.fixture(scope="module")
def folder(real_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explained") / "bundle"
    shutil.copytree(real_bundle, folder)
    for scorer in ("patchcore", "knn", "mahalanobis"):
        bundle, options = Bundle.open(folder), FitOptions(scorer=scorer, false_alarm=0.1, groups=1)
        bundle.add_recipe(fit_recipe(bundle, [picture(n) for n in range(24)], scorer, options))
    return folder


def test_two_defects_are_two_boxes_in_the_pictures_own_pixels(folder: Path) -> None:
    frame = picture(60, (0, 0), (3, 2), repeat=3)
    with Detector.load(folder, "patchcore") as detector:
        verdict = detector(frame)
        why = explain(detector, frame, verdict)
        repeated = explain(detector, frame, verdict)
    assert why == repeated
    assert len(why.regions) == 2
    assert [region.peak for region in why.regions] == sorted((region.peak for region in why.regions), reverse=True)
    # Pictures are stretched: 32 pixels of the model's are 192 wide and 96 high; a smoothed patch reaches a little further.
    for region, (x, y) in zip(sorted(why.regions, key=lambda region: region.x), ((0, 0), (96, 72)), strict=True):
        assert abs(region.x - x) <= 48 and abs(region.y - y) <= 24
        assert region.x <= x + 24 <= region.x + region.width and region.y <= y + 12 <= region.y + region.height
        assert 0.03 < region.area < 0.25
        assert region.x + region.width <= 192 and region.y + region.height <= 96
    assert why.p_value == pytest.approx(1 / 25)
    assert why.nearest is None


def test_the_nearest_good_patch_is_where_good_parts_look_alike(folder: Path) -> None:
    """A patch that is too bright for its column looks most like the rightmost column of a good part."""
    frame = picture(61, (1, 0), brightness=185)
    with Detector.load(folder, "patchcore") as detector:
        why = explain(detector, frame, detector(frame))
        images = detector.recipe.images
    nearest = why.regions[0].nearest
    assert nearest is not None and nearest.image in images
    assert nearest.x == 3.5 / 4
    assert nearest.y is not None and nearest.y * 4 % 1 == 0.5


def test_the_nearest_good_patch_is_nearest_by_the_rule_of_the_bank(folder: Path, tmp_path: Path) -> None:
    """By the cosine a grey patch of any brightness looks like any other; a red one like the reddest."""
    shutil.copytree(folder, tmp_path / "bundle")
    bundle, good = Bundle.open(tmp_path / "bundle"), [picture(n) for n in range(24)]
    reddish, red = picture(30), picture(61)
    reddish.pixels[8:16, 32:48, 0] = 220
    red.pixels[16:24, :16] = (200, 90, 90)
    options = FitOptions(false_alarm=0.1, groups=1, distance="cosine", projection="none")
    bundle = bundle.add_recipe(fit_recipe(bundle, [*good, reddish], "cosine", options))
    with Detector.load(bundle, "cosine") as detector:
        why = explain(detector, red, detector(red))
    nearest = why.regions[0].nearest
    assert nearest is not None and (nearest.image, nearest.x, nearest.y) == ("30.png", 2.5 / 4, 1.5 / 4)


def test_an_accepted_image_has_a_p_value_and_no_regions(folder: Path) -> None:
    with Detector.load(folder, "patchcore") as detector:
        frame = min((picture(n) for n in range(70, 80)), key=lambda frame: detector(frame).score)
        verdict = detector(frame)
        why = explain(detector, frame, verdict)
        above = int((detector.recipe.calibration_scores >= np.float32(verdict.score)).sum())
    assert why.regions == () and why.nearest is None
    assert why.p_value == pytest.approx((above + 1) / 25)


def test_scorers_of_the_whole_image_name_the_nearest_one_if_they_hold_images(folder: Path) -> None:
    frame = picture(62, (1, 1), (2, 2))
    for scorer, has_nearest in (("knn", True), ("mahalanobis", False)):
        with Detector.load(folder, scorer) as detector:
            why = explain(detector, frame, detector(frame))
            assert why.regions == () and (why.nearest is not None) == has_nearest
            if why.nearest is not None:
                assert why.nearest.image in detector.recipe.images and why.nearest.x is None


def test_boxes_leave_out_the_bars_of_a_letterbox() -> None:
    frame, spec = Frame(np.zeros((100, 200, 3), np.uint8), "x"), PreprocessSpec(64, 64, resize="letterbox")
    assert _in_picture(np.array([0, 0]), np.array([64, 64]), frame, spec) == (0, 0, 200, 100)
    assert _in_picture(np.array([16, 32]), np.array([32, 64]), frame, spec) == (100, 0, 100, 50)
    assert _in_picture(np.array([0, 0]), np.array([8, 8]), frame, spec) == (0, 0, 25, 1)


def test_a_score_just_above_the_threshold_still_shows_its_place() -> None:
    anomaly_map = np.zeros((8, 8), np.float32)
    anomaly_map[2, 3] = 1.9
    verdict = Verdict(2.1, 2.0, True, anomaly_map, 0.9, 0, 1.0, np.zeros(0, np.float32))
    assert shown_above(verdict) == pytest.approx(0.9 * 1.9)
    assert (anomaly_map > shown_above(verdict)).sum() == 1


def test_the_line_runs_inside_the_region_and_not_along_the_pictures_border() -> None:
    mask = np.zeros((12, 12), bool)
    mask[:6, 2:9] = True
    rim = outline(mask, 1)
    assert rim[:6, [2, 8]].all() and rim[5, 2:9].all() and not rim[0, 3:8].any() and not rim[~mask].any()
    drawn = draw_overlay(np.zeros((12, 12, 3), np.uint8), np.where(mask, 5, -1).astype(np.float32), 1.0)
    assert drawn[5, 4].tolist() == [0, 229, 255] and drawn[9, 9].tolist() == [0, 0, 0]


def test_score_explains_as_text_and_json(folder: Path, tmp_path: Path, orinspect: Callable[..., Any]) -> None:
    Image.fromarray(picture(60, (0, 0)).pixels).save(tmp_path / "bad.png")
    text = orinspect("score", folder, tmp_path / "bad.png", "--recipe", "patchcore", "--explain").out
    assert "p-value 0.0400" in text and "of the picture, peak" in text and "nearest good: " in text
    (row,) = json.loads(orinspect("score", folder, tmp_path / "bad.png", "--recipe", "knn", "--explain", "--json").out)
    assert row["p_value"] == pytest.approx(0.04) and row["nearest"]["image"].endswith(".png")
