"""Tiles are one picture with more patches: nothing is lost between them, no seam is seen, a place keeps its coordinates."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_edge_runtime.explain import explain
from orinspect_edge_runtime.features import score_features
from orinspect_edge_runtime.fit import fit_recipe
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.heads import axis_filter
from orinspect_edge_runtime.patch_scores import PatchScores
from orinspect_edge_runtime.preprocess import Frame, PreprocessSpec
from orinspect_edge_runtime.recipe_edit import mark_good
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_edge_runtime.tiling import Mosaic, Tiles, parse_tiles, view_of

SIDE, CELL, GRID = 32, 8, 4
# 3 x 2 tiles of 4 x 4 cells that share one: 10 x 7 cells.
TILES, WIDTH, HEIGHT = Tiles(3, 2), 80, 56
MOSAICS = st.builds(Tiles, st.integers(1, 4), st.integers(2, 4), st.sampled_from([0, 0.1, 0.25, 0.5]))


def picture(seed: int, spot: tuple[int, int] | None = None) -> Frame:
    """A large good part with grain; with a bright cell at [row, column]."""
    pixels = np.random.default_rng(seed).integers(90, 110, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    if spot is not None:
        y, x = spot[0] * CELL, spot[1] * CELL
        pixels[y : y + CELL, x : x + CELL] = 250
    return Frame(pixels, f"line/{seed}.png")


@pytest.fixture(scope="module")
def fitted(real_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiled") / "bundle"
    shutil.copytree(real_bundle, folder)
    for name, options in (("tiled", FitOptions(tiles="3x2")), ("whole", FitOptions(groups=1))):
        bundle = Bundle.open(folder)
        bundle.add_recipe(fit_recipe(bundle, [picture(n) for n in range(12)], name, options))
    return folder


@pytest.fixture
def bundle(fitted: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(fitted, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


@settings(max_examples=40)
@given(MOSAICS)
def test_every_place_is_seen_and_keeps_its_number(tiles: Tiles) -> None:
    mosaic = Mosaic(tiles, PreprocessSpec(SIDE, SIDE), (GRID, GRID))
    rows, columns = mosaic.grid
    assert (mosaic.spec.height, mosaic.spec.width) == (rows * CELL, columns * CELL)
    numbers = np.arange(rows * columns, dtype=np.uint8).reshape(rows, columns)
    assert rows * columns <= 256
    whole = np.repeat(np.kron(numbers, np.ones((CELL, CELL), np.uint8))[:, :, None], 3, axis=2)
    cut = mosaic.cut(whole)
    assert len(cut) == tiles.columns * tiles.rows and all(tile.shape == (SIDE, SIDE, 3) for tile in cut)
    seen = np.concatenate([tile[::CELL, ::CELL, 0].ravel() for tile in cut])
    assert (seen == mosaic.cells).all(), "patch for patch, in the order of the outputs"
    assert (mosaic.cells[mosaic.patch_of] == np.arange(rows * columns)).all(), "every place, by a patch that is there"


def test_a_shared_place_is_shown_by_the_tile_that_has_it_farther_inside() -> None:
    mosaic = Mosaic(Tiles(2, 1, 0.5), PreprocessSpec(SIDE, SIDE), (GRID, GRID))
    # Columns 0..3 and 2..5: in the second row, the first shared column lies farther inside of the first tile.
    assert (mosaic.patch_of.reshape(mosaic.grid)[1] // (GRID * GRID)).tolist() == [0, 0, 0, 1, 1, 1]


def test_the_map_is_that_of_a_graph_as_large_as_the_picture(bundle: Bundle) -> None:
    """The tiny encoder sees each cell by itself, so that a larger graph would give the same patches."""
    frame, recipe = picture(50, (3, 6)), bundle.recipe("tiled")
    cells = frame.pixels.reshape(7, CELL, 10, CELL, 3).transpose(0, 2, 1, 3, 4)
    with Detector.load(bundle, "tiled") as detector:
        verdict, features = detector(frame), detector.features(frame)
    mosaic = Mosaic(TILES, PreprocessSpec(SIDE, SIDE), (GRID, GRID))
    patches = features.patches[:, mosaic.patch_of]
    means = cells.reshape(70, CELL * CELL, 3).mean(axis=1)
    assert np.corrcoef(patches[0].ravel(), means.ravel())[0, 1] > 0.999, "these are the cells of the whole picture"
    _, distances = SCORERS["patchcore"].raw_scores(recipe.arrays, features.embedding, patches, np.zeros(1, int))
    scores = (np.asarray(distances)[0] - recipe.arrays["score_offset"][0]) * recipe.arrays["score_scale"][0]
    expected = axis_filter(7, HEIGHT) @ scores.reshape(7, 10) @ axis_filter(10, WIDTH).T
    assert verdict.anomaly_map is not None and verdict.anomaly_map.shape == (HEIGHT, WIDTH)
    assert verdict.anomaly_map == pytest.approx(expected, abs=1e-3 * float(np.abs(scores).max()))
    assert verdict.score == pytest.approx(scores.max(), rel=1e-4)


def test_a_defect_on_a_seam_scores_as_one_inside(bundle: Bundle) -> None:
    """Cells 3 and 6 of a row are seen by two tiles, cell (3, 3) by four, the others by one."""
    with Detector.load(bundle, "tiled") as detector:
        found = {place: detector(picture(60, place)) for place in itertools.product(range(7), range(10))}
    scores = [verdict.score for verdict in found.values()]
    assert scores == pytest.approx([scores[0]] * 70, rel=1e-4) and min(scores) > found[0, 0].threshold
    for (row, column), verdict in found.items():
        peak = np.unravel_index(np.asarray(verdict.anomaly_map).argmax(), (HEIGHT, WIDTH))
        assert abs(peak[0] // CELL - row) <= 1 and abs(peak[1] // CELL - column) <= 1, "the map's peak lies there"


def test_without_overlap_a_good_picture_shows_no_seam(real_bundle: Path) -> None:
    """Steps of the map across the tiles' rims are as any others."""
    bundle = Bundle.open(real_bundle)
    frames = [picture(n) for n in range(12)]
    recipe = fit_recipe(bundle, frames, "cut", FitOptions(tiles="2x2", tile_overlap=0))
    tiled = bundle.manifest.encoder.grid[0] * 2
    mosaic = view_of(recipe.tiles, bundle.manifest)
    assert mosaic.grid == (tiled, tiled)
    rng = np.random.default_rng(0)
    scores = rng.random(mosaic.grid, np.float32)
    drawn = PatchScores(mosaic.grid, (64, 64)).drawn(scores)
    pieces = [scores[y : y + 4, x : x + 4] for y in (0, 4) for x in (0, 4)]
    maps = [PatchScores((4, 4), (32, 32)).drawn(piece) for piece in pieces]
    outputs = [{"score": piece.max()[None], "anomaly_map": one[None], "embedding": np.zeros((1, 9), np.float32),
                "patches": np.zeros((1, 16, 3), np.float32)} for piece, one in zip(pieces, maps, strict=True)]  # fmt: skip
    joined = mosaic.joined(outputs)["anomaly_map"][0]  # type: ignore[attr-defined]
    assert joined == pytest.approx(drawn, abs=1e-4)
    side_by_side = np.block([[maps[0], maps[1]], [maps[2], maps[3]]])
    steps = np.abs(np.diff(joined, axis=1)).max(axis=0)
    assert steps[31] <= steps.max() and np.abs(np.diff(side_by_side, axis=1)).max(axis=0)[31] > 2 * steps[31]


def test_an_alarm_is_explained_in_the_pictures_own_coordinates(bundle: Bundle) -> None:
    frame = picture(70, (5, 8))
    bright = picture(71, (1, 2))
    mark_good(bundle, "tiled", bright)
    bundle = bundle.now()
    origin = bundle.recipe("tiled").arrays["bank_origin"][-1]
    mosaic = Mosaic(TILES, PreprocessSpec(SIDE, SIDE), (GRID, GRID))
    assert (origin[0], mosaic.cells[origin[1]]) == (12, 1 * 10 + 2), "the row that was taught is the bright cell"
    with Detector.load(bundle, "tiled") as detector:
        assert not detector(frame).is_anomalous, "a bright cell is good anywhere now"
        darker = Frame(np.where(frame.pixels == 250, 200, frame.pixels).astype(np.uint8), "x")
        verdict = detector(darker)
        assert verdict.is_anomalous
        (region,) = explain(detector, darker, verdict).regions
    assert region.x <= 8 * CELL < region.x + region.width and region.y <= 5 * CELL < region.y + region.height
    assert region.nearest is not None and region.nearest.image == "line/71.png"
    assert (region.nearest.x, region.nearest.y) == pytest.approx((2.5 / 10, 1.5 / 7))


@pytest.mark.parametrize("chosen", [{"neighbours": 3}, {"distance": "cosine", "projection": "none"}])
def test_tiles_are_searched_by_any_rule(bundle: Bundle, chosen: dict[str, Any]) -> None:
    options = FitOptions(tiles="3x2", **chosen)
    bundle = bundle.add_recipe(fit_recipe(bundle, [picture(n) for n in range(12)], "ruled", options))
    recipe, frame = bundle.recipe("ruled"), picture(50, (3, 6))
    frame.pixels[3 * CELL : 4 * CELL, 6 * CELL : 7 * CELL, 2] = 60
    with Detector.load(bundle, "ruled") as detector:
        verdict, features = detector(frame), detector.features(frame)
    scores, _ = score_features(SCORERS["patchcore"], recipe.arrays, features)
    assert verdict.score == pytest.approx(scores[0], rel=1e-5) and verdict.is_anomalous
    peak = np.unravel_index(int(np.asarray(verdict.anomaly_map).argmax()), (HEIGHT, WIDTH))
    assert (peak[0] // CELL, peak[1] // CELL) == (3, 6)


def test_recipes_with_and_without_tiles_in_turn(bundle: Bundle) -> None:
    frame = picture(80, (2, 2))
    with Detector.load(bundle, "whole", recipes=["tiled"]) as detector:
        sizes = []
        for name in ("whole", "tiled", "whole"):
            detector.use(name)
            sizes.append(np.asarray(detector(frame).anomaly_map).shape)
        assert sizes == [(SIDE, SIDE), (HEIGHT, WIDTH), (SIDE, SIDE)]
        detector.require_golden()


def test_a_number_that_is_none_is_no_verdict(bundle: Bundle) -> None:
    mosaic = Mosaic(TILES, PreprocessSpec(SIDE, SIDE), (GRID, GRID))
    tile = {"score": np.array([np.nan], np.float32), "anomaly_map": np.full((1, SIDE, SIDE), np.nan, np.float32),
            "embedding": np.zeros((1, 9), np.float32), "patches": np.zeros((1, 16, 3), np.float32)}  # fmt: skip
    good = tile | {"score": np.zeros(1, np.float32), "anomaly_map": np.zeros((1, SIDE, SIDE), np.float32)}
    outputs = mosaic.joined([good] * 5 + [tile])
    with Detector.load(bundle, "tiled") as detector, pytest.raises(CheckFailed, match="no number"):
        detector.verdict(outputs, "x")


def test_the_command_line_all_the_way(
    real_bundle: Path, tmp_path: Path, pictures: Path, orinspect: Callable[..., Any]
) -> None:
    shutil.copytree(real_bundle, tmp_path / "bundle")
    bundle = tmp_path / "bundle"
    fitted = orinspect(
        "fit", bundle, pictures / "train", "--tiles", "2x2", "--tile-overlap", "0.5", "--false-alarm", "0.1"
    )
    assert fitted.code == 0, fitted.err
    assert "tiles: 2x2, which see the picture at 48x48 pixels" in fitted.out
    shown = orinspect("score", bundle, pictures / "test/blot", "--explain", "--overlay", tmp_path / "maps", "--json")
    rows = json.loads(shown.out)
    assert all(row["is_anomalous"] and row["regions"][0]["nearest"]["image"] for row in rows)
    with Image.open(next((tmp_path / "maps").iterdir())) as drawn:
        assert drawn.size == (36, 40)
    assert json.loads(orinspect("evaluate", bundle, pictures, "--json").out)["auroc"] == 1
    assert orinspect("recipe", "add", bundle, pictures / "test/blot/00.png").code == 0
    assert orinspect("drift", bundle, pictures / "test/good").code in (0, 1)
    assert Bundle.open(bundle).recipe(None).tiles == Tiles(2, 2, 0.5)


def test_its_maps_are_in_the_report(
    real_bundle: Path, tmp_path: Path, pictures: Path, orinspect: Callable[..., Any]
) -> None:
    pytest.importorskip("jinja2", reason="the extra `report` is not installed")
    pytest.importorskip("matplotlib", reason="the extra `report` is not installed")
    bundle = shutil.copytree(real_bundle, tmp_path / "bundle")
    assert orinspect("fit", bundle, pictures / "train", "--tiles", "2x2", "--false-alarm", "0.1").code == 0
    judged = orinspect("evaluate", bundle, pictures, "--report", tmp_path / "report")
    assert judged.code == 0, judged.err
    page = (tmp_path / "report/report.html").read_text()
    assert page.count("data:image/png") >= 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tiles": "3by2"}, "columns x rows, for example 3x2"),
        ({"tiles": "1x1"}, "at least two tiles"),
        ({"tiles": "0x4"}, "at least two tiles"),
        ({"tiles": "2x2", "tile_overlap": 0.6}, "--tile-overlap 0.6: a share of a tile from 0 to 0.5"),
        ({"tiles": "2x2", "tile_overlap": float("nan")}, "--tile-overlap nan"),
        ({"tiles": "2x2", "scorer": "padim"}, "--tiles needs the scorer patchcore"),
        ({"tiles": "2x2", "groups": 2}, "leave --groups away"),
        ({"tiles": "2x2", "reweight": 9}, "--reweight weighs a picture by its one farthest patch"),
    ],
)
def test_tiles_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FitOptions(**fields)


def test_tiles_that_do_not_go_with_the_model(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="the whole picture would be 4832x56 pixels; 4096 a side at most"):
        view_of(Tiles(201, 2), bundle.manifest)
    odd = dataclasses.replace(bundle.manifest, preprocess=PreprocessSpec(SIDE + 1, SIDE))
    with pytest.raises(InputError, match="no multiple of 4x4 patches"):
        view_of(Tiles(2, 2), odd)
    mask = np.ones((SIDE, SIDE), bool)
    with pytest.raises(InputError, match="a mask and tiles do not go together"):
        fit_recipe(bundle, [picture(n) for n in range(3)], "x", FitOptions(tiles="2x2"), mask=mask)
    assert parse_tiles("", 0.25) is None and str(parse_tiles("12x1", 0)) == "12x1"
