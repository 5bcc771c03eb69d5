"""A part is found where it lies, brought to its place, and what is shown of it lies where it is in the picture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from orinspect_edge_runtime.alignment import Align, Aligner, Pose, make_reference, sketch, sketch_size
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.explain import explain
from orinspect_edge_runtime.fit import fit_recipe
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.preprocess import Frame, PreprocessSpec
from orinspect_edge_runtime.recipe import from_bytes, to_bytes
from orinspect_edge_runtime.recipe_edit import mark_good

SPEC = PreprocessSpec(64, 64)
POSES = st.tuples(st.floats(-1, 1), st.floats(-0.12, 0.12), st.floats(-0.12, 0.12))


def part(
    width: int, height: int, degrees: float = 0, x: float = 0, y: float = 0, seed: int = 0, hole: bool = False
) -> Frame:
    """A plate with an odd outline and drillings, on a dark belt: turned about the picture's centre, then shifted."""
    middle, unit = np.array([width / 2, height / 2]), min(width, height) / 100
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        placed = np.array(points) * unit @ turn.T + middle + [x * width, y * height]
        return [(float(a) * 4, float(b) * 4) for a, b in placed]

    image = Image.new("L", (width * 4, height * 4), 20)
    draw = ImageDraw.Draw(image)
    draw.polygon(at((-28, -20), (22, -20), (30, -8), (30, 20), (-10, 24), (-28, 16)), fill=150)
    for number, (px, py, radius) in enumerate(((-18, -10, 5), (16, 8, 7), (-6, 12, 3), (4, -6, 4))):
        draw.ellipse(disc(*at((px, py))[0], radius * unit * 4), fill=60 + 20 * number)
    if hole:
        draw.ellipse(disc(*at((18, -12))[0], 5 * unit * 4), fill=250)
    gray = np.asarray(image.resize((width, height), Image.Resampling.BOX), np.float32)
    gray = gray + np.random.default_rng(seed).normal(0, 2, gray.shape)
    pixels = np.repeat(np.clip(gray, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    return Frame(pixels, f"line/{seed}.png")


def disc(x: float, y: float, radius: float) -> list[float]:
    return [x - radius, y - radius, x + radius, y + radius]


def off(first: float, second: float) -> float:
    """Degrees between two turns."""
    return abs((first - second + 180) % 360 - 180)


@settings(max_examples=25)
@given(POSES, st.sampled_from([0.0, 8.0, 45.0, 180.0]), st.sampled_from([(160, 160), (240, 160), (150, 200), (96, 96)]))
def test_a_part_is_found_within_half_a_degree_and_a_pixel_of_the_sketch(
    pose: tuple[float, float, float], most: float, size: tuple[int, int]
) -> None:
    reference = part(*size).pixels
    aligner = Aligner(Align(most), sketch(reference, sketch_size(reference)))
    degrees = pose[0] * most
    found = aligner.pose(part(*size, degrees, pose[1], pose[2], seed=1).pixels)
    assert off(found.degrees, degrees) < 0.5
    assert (found.x * size[0], found.y * size[1]) == pytest.approx(
        (pose[1] * size[0], pose[2] * size[1]), abs=1.2 * max(size) / 128
    )
    assert found.match > 0.9


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [(160, 160), (240, 160), (150, 200)])
def test_a_placed_part_looks_as_the_reference_does(size: tuple[int, int], resize: str) -> None:
    spec = PreprocessSpec(96, 96, resize)
    plain, moved = part(*size).pixels, part(*size, 7, -0.08, 0.1, seed=1).pixels
    aligner = Aligner(Align(10), sketch(plain, sketch_size(plain)))
    wanted = aligner.placed(plain, Pose(0, 0, 0, 1), spec).astype(int)
    placed = aligner.placed(moved, aligner.pose(moved), spec).astype(int)
    untouched = aligner.placed(moved, Pose(0, 0, 0, 1), spec).astype(int)
    assert placed.shape == wanted.shape
    assert np.abs(placed - wanted).mean() < 0.25 * np.abs(untouched - wanted).mean()
    assert np.abs(placed - wanted).mean() < 4


@settings(max_examples=40)
@given(
    POSES,
    st.sampled_from(["stretch", "letterbox"]),
    st.sampled_from([(160, 160), (240, 160), (150, 200)]),
    st.tuples(st.floats(0.35, 0.65), st.floats(0.35, 0.65)),
)
def test_a_place_of_the_map_goes_there_and_back(
    pose: tuple[float, float, float], resize: str, size: tuple[int, int], place: tuple[float, float]
) -> None:
    """A hot spot of a placed picture's map, sent to the picture as it came, is found again by its place there."""
    spec = PreprocessSpec(96, 128, resize)
    plain = part(*size).pixels
    aligner = Aligner(Align(180), sketch(plain, sketch_size(plain)))
    at = Pose(pose[1], pose[2], 40 * pose[0], 1)
    rows, columns = np.mgrid[: spec.height, : spec.width] + 0.5
    hot = np.exp(-((rows - place[0] * 96) ** 2 + (columns - place[1] * 128) ** 2) / 8) - 3
    shown = aligner.in_picture(hot.astype(np.float32), at, plain.shape, spec)
    assert shown.shape == hot.shape and shown.min() == pytest.approx(hot.min(), abs=1e-3)
    peak = (np.array(np.unravel_index(shown.argmax(), shown.shape)) + 0.5) / shown.shape
    assert aligner.in_part(peak, at, plain.shape, spec) == pytest.approx(place, abs=1.5 / 96)


def test_the_reference_lies_where_most_parts_do() -> None:
    rng = np.random.default_rng(0)
    lie = rng.uniform(-1, 1, (16, 3)) * [6, 0.05, 0.05] + [4, 0.06, -0.04]
    pictures = [part(160, 160, *one, seed=n).pixels for n, one in enumerate(lie)]
    reference = make_reference(Align(15), pictures)
    upright = part(160, 160).pixels
    found = Aligner(Align(15), sketch(upright, sketch_size(upright))).pose_of(reference)
    middle = np.median(lie, axis=0)
    assert (found.degrees, found.x, found.y) == pytest.approx(tuple(middle), abs=0.6) and found.match > 0.95
    assert (found.x, found.y) == pytest.approx((middle[1], middle[2]), abs=0.012)


def test_pictures_without_anything_in_them_are_refused() -> None:
    blank = np.full((80, 80, 3), 90, np.uint8)
    with pytest.raises(InputError, match="nothing can be seen"):
        make_reference(Align(0), [blank] * 4)
    plain = part(160, 160).pixels
    found = Aligner(Align(5), sketch(plain, sketch_size(plain))).pose(blank)
    assert np.isfinite([found.x, found.y, found.degrees, found.match]).all() and found.match < 0.2


@pytest.mark.parametrize("degrees", [-1, 181, float("nan"), float("inf")])
def test_degrees_that_are_none(degrees: float) -> None:
    with pytest.raises(InputError, match="0 to 180"):
        FitOptions(align=degrees)


def moved(count: int, first: int, *, hole: bool = False) -> list[Frame]:
    rng = np.random.default_rng(first)
    lie = rng.uniform(-1, 1, (count, 3)) * [12, 0.08, 0.08]
    return [part(160, 160, *one, seed=first + n, hole=hole) for n, one in enumerate(lie)]


@pytest.fixture(scope="module")
def fitted(real_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aligned") / "bundle"
    shutil.copytree(real_bundle, folder)
    mask = np.zeros((32, 32), bool)
    mask[:16] = True
    for name, align, region in (("aligned", 15.0, None), ("plain", None, None), ("upper", 15.0, mask)):
        bundle = Bundle.open(folder)
        options = FitOptions(align=align, groups=1, false_alarm=0.05)
        bundle.add_recipe(fit_recipe(bundle, moved(30, 0), name, options, mask=region))
    return folder


@pytest.fixture
def bundle(fitted: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(fitted, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


def test_defects_stand_out_of_parts_that_lie_anyhow(bundle: Bundle) -> None:
    good, bad = moved(12, 100), moved(12, 200, hole=True)
    gaps = {}
    for name in ("aligned", "plain"):
        with Detector.load(bundle, name) as detector:
            scores = [[detector(frame).score for frame in frames] for frames in (good, bad)]
            gaps[name] = (np.min(scores[1]) - np.max(scores[0])) / np.std(scores[0])
    assert gaps["aligned"] > 5 and gaps["plain"] < -1, "told apart only when the parts are brought to one place"


def test_the_map_is_that_of_the_picture_as_it_came(bundle: Bundle) -> None:
    frame = part(160, 160, 12, 0.08, -0.07, seed=9, hole=True)
    angle = np.deg2rad(12)
    wanted = 80 + 1.6 * np.array([18 * np.cos(angle) + 12 * np.sin(angle), 18 * np.sin(angle) - 12 * np.cos(angle)])
    wanted += [0.08 * 160, -0.07 * 160]
    with Detector.load(bundle, "aligned") as detector:
        verdict = detector(frame)
        assert verdict.pose is not None and off(verdict.pose.degrees, 12) < 3
        peak = (np.array(np.unravel_index(np.asarray(verdict.anomaly_map).argmax(), (32, 32))) + 0.5) * 5
        assert peak[::-1] == pytest.approx(wanted, abs=20)
        region = explain(detector, frame, verdict).regions[0]
    assert region.x - 8 <= wanted[0] <= region.x + region.width + 8
    assert region.y - 8 <= wanted[1] <= region.y + region.height + 8


def test_an_alarm_is_explained_by_the_good_part_as_it_lies_in_its_place(real_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(real_bundle, tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    bundle.add_recipe(fit_recipe(bundle, moved(12, 0), "bank", FitOptions(align=15.0, groups=1)))
    turned = part(160, 160, -12, seed=40, hole=True)
    mark_good(bundle, "bank", turned)
    grayer = part(160, 160, 12, seed=41, hole=True)
    grayer = Frame(np.where(grayer.pixels > 235, 200, grayer.pixels).astype(np.uint8), "x")
    with Detector.load(bundle.now(), "bank") as detector:
        verdict = detector(grayer)
        assert verdict.is_anomalous
        nearest = explain(detector, grayer, verdict).regions[0].nearest
        assert nearest is not None and nearest.image == turned.source
        # The hole, 18 to the right of the middle and 12 up, turned by 12 degrees; here as [row, column].
        angle = np.deg2rad(12)
        hole = 0.5 + 0.01 * np.array([18 * np.sin(angle) - 12 * np.cos(angle), 18 * np.cos(angle) + 12 * np.sin(angle)])
        place = detector.place_in_part(hole, grayer, verdict.pose or Pose(0, 0, 0, 0))
    assert place == pytest.approx([0.38, 0.68], abs=0.06), "where it is in a part that lies straight"


def test_the_mask_moves_with_the_part(bundle: Bundle) -> None:
    """Only the upper half of the part is inspected, where the hole is; a stain on the lower half is none of its business."""
    with Detector.load(bundle, "upper") as detector:
        for degrees in (-10, 10):
            plain = detector(part(160, 160, degrees, seed=300))
            holed = detector(part(160, 160, degrees, seed=300, hole=True))
            assert holed.score > plain.score + 1


def test_it_is_kept_with_the_recipe(bundle: Bundle) -> None:
    kept = bundle.recipe("aligned")
    again = from_bytes(to_bytes(kept), "x")
    assert kept.align == again.align == Align(15.0)
    assert (kept.arrays["align_reference"] == again.arrays["align_reference"]).all()
    assert kept.arrays["align_reference"].shape == (128, 128)
    assert bundle.recipe("plain").align is None and "align_reference" not in bundle.recipe("plain").arrays


def test_the_same_frames_give_the_same_recipe_whole_or_in_parts(real_bundle: Path) -> None:
    """More images than the reference is made of, and those that enter the bank one by one, are placed too."""
    bundle = Bundle.open(real_bundle)
    frames, options = moved(60, 0), FitOptions(align=15.0, groups=1)
    grown = fit_recipe(bundle, frames[:56], "a", options, more=frames[56:])
    assert grown.good_images == 60 and grown.images == tuple(frame.source for frame in frames)
    unplaced = fit_recipe(bundle, frames[:56], "a", FitOptions(groups=1), more=frames[56:])
    assert grown.arrays["bank"].shape[1] < unplaced.arrays["bank"].shape[1], "placed parts are more alike"


def test_the_command_line_all_the_way(real_bundle: Path, tmp_path: Path, orinspect: Callable[..., Any]) -> None:
    bundle, data = tmp_path / "bundle", tmp_path / "data"
    shutil.copytree(real_bundle, bundle)
    sets = {"train": moved(30, 0), "good": moved(8, 100), "hole": moved(8, 200, hole=True)}
    for name, frames in sets.items():
        (data / name).mkdir(parents=True)
        for number, frame in enumerate(frames):
            Image.fromarray(frame.pixels).save(data / name / f"{number:02}.png")
    fitted = orinspect("fit", bundle, data / "train", "--align", "15", "--false-alarm", "0.1")
    assert fitted.code == 0, fitted.err
    assert "align: shifts, and turns of up to 15 degrees, are undone" in fitted.out
    shown = orinspect("score", bundle, data / "hole", "--explain", "--overlay", tmp_path / "maps", "--json")
    rows = json.loads(shown.out)
    assert all(row["is_anomalous"] and set(row["pose"]) == {"x", "y", "degrees", "match"} for row in rows)
    shutil.move(data / "train", tmp_path / "train")
    assert json.loads(orinspect("evaluate", bundle, data, "--json").out)["auroc"] == 1
    refused = orinspect("fit", bundle, tmp_path / "train", "--align", "200")
    assert refused.code == 2 and "0 to 180" in refused.err and len(refused.err.strip().splitlines()) == 1
