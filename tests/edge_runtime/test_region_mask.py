"""Masks: score and map are those of the inspected patches, whichever backend, scorer and resize; nothing outside shows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from orinspect_edge_runtime.backends import searching
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.errors import CheckFailed, ImageError, InputError
from orinspect_edge_runtime.features import score_features
from orinspect_edge_runtime.fit import fit_recipe
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.heads import axis_filter
from orinspect_edge_runtime.preprocess import Frame, PreprocessSpec
from orinspect_edge_runtime.recipe_edit import mark_good
from orinspect_edge_runtime.recipe_threshold import rescored
from orinspect_edge_runtime.region_mask import RegionMask, inspected_patches, on_all_patches, read_region
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_edge_runtime.scorers.padim import Padim

SIDE, CELL = 32, 8


def picture(seed: int, spot: tuple[int, int] | None = None, colour: Any = 250) -> Frame:
    pixels = np.random.default_rng(seed).integers(90, 110, (SIDE, SIDE, 3), dtype=np.uint8)
    if spot is not None:
        row, column = spot
        pixels[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = colour
    return Frame(pixels, f"{seed}.png")


def left_half() -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:, : SIDE // 2] = True
    return mask


@pytest.fixture(params=[4, 2], ids=["searched by the graph", "searched in cells"])
def bundle(request: Any, real_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    if request.param == 2:
        monkeypatch.setattr(searching, "FEWEST_PAIRS", 1)
    shutil.copytree(real_bundle, tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    options = FitOptions(false_alarm=0.1, groups=1)
    return bundle.add_recipe(fit_recipe(bundle, [picture(n) for n in range(24)], "half", options, mask=left_half()))


def test_only_the_inspected_region_counts(bundle: Bundle) -> None:
    with Detector.load(bundle) as detector:
        plain, outside, inside = (detector(picture(50, spot)) for spot in (None, (1, 3), (1, 0)))
        for frame in (picture(50), picture(50, (1, 3)), picture(51, (2, 1))):
            features = detector.features(frame)
            expected, _ = score_features(SCORERS["patchcore"], detector.recipe.arrays, features)
            assert detector(frame).score == pytest.approx(expected[0], rel=1e-3, abs=1e-3)
    assert not plain.is_anomalous and not outside.is_anomalous and inside.is_anomalous
    assert outside.score == pytest.approx(plain.score, abs=1e-3)
    assert inside.anomaly_map is not None and outside.anomaly_map is not None
    assert (inside.anomaly_map[~left_half()] == inside.anomaly_map.min()).all()
    assert outside.anomaly_map.max() <= outside.score + 1e-3
    peak = np.unravel_index(int(inside.anomaly_map.argmax()), inside.anomaly_map.shape)
    assert CELL <= peak[0] < 2 * CELL and peak[1] < CELL


@pytest.mark.parametrize("chosen", [{"neighbours": 3}, {"reweight": 9}, {"distance": "cosine", "projection": "none"}])
def test_a_mask_holds_by_any_rule(bundle: Bundle, chosen: dict[str, Any]) -> None:
    options, good = FitOptions(false_alarm=0.1, groups=1, **chosen), [picture(n) for n in range(24)]
    # The cosine sees colours, not how bright they are.
    blue = (60, 60, 250)
    defects = [picture(70, (1, 1), blue), picture(71, (2, 0), blue)]
    bundle = bundle.add_recipe(fit_recipe(bundle, good, "half", options, mask=left_half(), defects=defects))
    recipe = bundle.recipe("half")
    assert recipe.defect_scores == pytest.approx(rescored(recipe).defect_scores, rel=1e-5)
    with Detector.load(bundle, "half") as detector:
        plain, outside, inside = (detector(picture(50, spot, blue)) for spot in (None, (1, 3), (1, 0)))
        for frame in (picture(50, (1, 3), blue), picture(51, (2, 1)), *defects):
            expected, _ = score_features(SCORERS["patchcore"], recipe.arrays, detector.features(frame))
            assert detector(frame).score == pytest.approx(expected[0], rel=1e-3, abs=1e-3)
        assert [detector(frame).score for frame in defects] == pytest.approx(recipe.defect_scores.tolist(), rel=1e-3)
    assert outside.score == pytest.approx(plain.score, abs=1e-3) and inside.is_anomalous


def test_the_bank_holds_inspected_patches_only_also_after_an_edit(bundle: Bundle) -> None:
    inspected = inspected_patches(left_half(), (4, 4))
    edit = mark_good(bundle, "half", picture(50, (3, 1)))
    recipe = bundle.now().recipe("half")
    assert recipe.arrays["bank_origin"][-edit.rows_added].tolist() == [24, 13], "the farthest first: the spot"
    assert inspected[recipe.arrays["bank_origin"][:, 1]].all()
    mark_good(bundle, "half", picture(52, (0, 2)))
    origin = bundle.now().recipe("half").arrays["bank_origin"]
    assert inspected[origin[:, 1]].all(), "outside there is nothing to learn"


@pytest.mark.parametrize("scorer", [Padim(), Padim(2)])
def test_gaussians_outside_are_at_distance_zero_for_every_patch(scorer: Padim) -> None:
    rng = np.random.default_rng(0)
    patches, inspected = rng.standard_normal((12, 16, 3), np.float32), inspected_patches(left_half(), (4, 4))
    part = scorer.fit(np.zeros((12, 9), np.float32), patches[:, inspected], np.zeros(12, int), 1)
    whole = on_all_patches(dict(part), inspected)
    scores, distances = scorer.raw_scores(whole, np.zeros((12, 9), np.float32), patches, np.zeros(12, int))
    expected, _ = scorer.raw_scores(dict(part), np.zeros((12, 9), np.float32), patches[:, inspected], np.zeros(12, int))
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert distances is not None and (distances[:, ~inspected] == 0).all()


@settings(max_examples=40)
@given(st.integers(2, 9), st.integers(2, 9), st.sampled_from([8, 16, 21]), st.integers(0, 2**32 - 1))
def test_the_patches_scores_are_found_again_from_any_map(rows: int, columns: int, stride: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = (rng.standard_normal((rows, columns)) * 10 ** rng.uniform(-2, 3)).astype(np.float32)
    tall, wide = axis_filter(rows, rows * stride), axis_filter(columns, columns * stride)
    mask = rng.random((rows * stride, columns * stride)) < rng.uniform(0.3, 1)
    inspected = inspected_patches(mask, (rows, columns))
    if not inspected.any():
        return
    score, masked = RegionMask(mask, (rows, columns)).apply(float(scores.max()), tall @ scores @ wide.T)
    expected, size = float(scores.ravel()[inspected].max()), float(np.abs(scores).max())
    assert score == pytest.approx(expected, abs=1e-5 * size)
    assert masked.max() <= score + 1e-5 * size
    assert (masked[~mask] == masked.min()).all() and masked[~mask].max(initial=0) <= 0


def test_a_map_of_another_make_is_refused_and_no_number_stays_none() -> None:
    region = RegionMask(left_half(), (4, 4))
    with pytest.raises(CheckFailed, match="export the bundle again"):
        region.apply(9.0, np.random.default_rng(0).random((SIDE, SIDE)).astype(np.float32))
    score, _ = region.apply(float("nan"), np.full((SIDE, SIDE), np.nan, np.float32))
    assert np.isnan(score)


def test_half_of_a_cell_makes_it_inspected() -> None:
    mask = np.zeros((16, 16), bool)
    mask[:8, :4] = True
    mask[8:, 8:11] = True
    assert inspected_patches(mask, (2, 2)).tolist() == [True, False, False, False]


def test_mask_files(tmp_path: Path) -> None:
    spec = PreprocessSpec(SIDE, SIDE)
    Image.fromarray(np.repeat(np.repeat(left_half(), 3, 0), 5, 1).astype(np.uint8) * 255).save(tmp_path / "half.png")
    assert (read_region(tmp_path / "half.png", spec, (4, 4)) == left_half()).all()
    Image.new("L", (40, 40)).save(tmp_path / "black.png")
    with pytest.raises(InputError, match="paint white"):
        read_region(tmp_path / "black.png", spec, (4, 4))
    with pytest.raises(ImageError):
        read_region(tmp_path / "none.png", spec, (4, 4))


def test_the_commands_take_a_mask_and_refuse_it_where_it_means_nothing(
    real_bundle: Path, tmp_path: Path, pictures: Path, orinspect: Callable[..., Any]
) -> None:
    shutil.copytree(real_bundle, tmp_path / "bundle")
    Image.fromarray(left_half().astype(np.uint8) * 255).save(tmp_path / "mask.png")
    arguments = ("fit", tmp_path / "bundle", pictures / "train", "--mask", tmp_path / "mask.png")
    done = orinspect(*arguments, "--false-alarm", "0.1", "--review-alarm", "0.3")
    assert done.code == 0 and "mask: 50% of the picture is inspected, 8 patches" in done.out
    assert "review from" in done.out
    for scorer in ("knn", "padim_mahalanobis"):
        refused = orinspect(*arguments, "--scorer", scorer)
        assert refused.code == 2 and f"{scorer} judges the image as a whole" in refused.err
