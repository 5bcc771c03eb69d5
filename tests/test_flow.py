"""The whole journey on small rendered images, through the commands a user types; and what must agree at its joints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the journey needs the train and export extras")

from orinspect_edge_runtime import Bundle, Detector
from orinspect_edge_runtime.backends import open_backend
from orinspect_edge_runtime.features import extract, score_features
from orinspect_edge_runtime.heads import neutral_inputs
from orinspect_edge_runtime.preprocess import read_frame
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_edge_runtime.tiling import view_of

SIZE = 64


def orinspect(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "orinspect_edge_runtime.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def draw(folder: Path, count: int, seed: int, *, scratched: bool = False) -> None:
    """Textured plates; a scratch is a bright diagonal line."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    ramp = np.linspace(60, 160, 80)[None, :] + 20 * np.sin(np.arange(80) / 3)[:, None]
    for number in range(count):
        plate = ramp + rng.normal(0, 6, (80, 80))
        if scratched:
            at = rng.integers(10, 40)
            steps = np.arange(25)
            plate[at + steps, at + steps] = 255
            plate[at + steps + 1, at + steps] = 255
        Image.fromarray(plate.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03d}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flow")
    draw(folder / "data/train/good", 40, 0)
    draw(folder / "data/test/good", 15, 1)
    draw(folder / "data/test/scratch", 15, 2, scratched=True)
    good = folder / "data/train/good"
    orinspect("pretrain", good, "--out", folder / "run", "--epochs", "0", "--size", SIZE)
    # Forty plates that differ by noise alone have no order to keep: the budget is as loose as they are alike.
    budget = ("--min-rank-correlation", "0.97", "--max-flips", "0.1")
    orinspect("export", folder / "run", "--out", folder / "bundle", "--calibration", good, *budget)
    for scorer in SCORERS:
        orinspect("fit", folder / "bundle", good, "--recipe", scorer, "--scorer", scorer, "--false-alarm", "0.05")
    return folder


@pytest.mark.parametrize("scorer", SCORERS)
def test_every_scorer_finds_scratches(place: Path, scorer: str) -> None:
    found = json.loads(orinspect("evaluate", place / "bundle", place / "data", "--recipe", scorer, "--json"))
    assert found["auroc"] > 0.95
    assert (found["good_images"], found["defective_images"]) == (15, 15)


@pytest.mark.parametrize("scorer", SCORERS)
def test_the_graph_scores_as_numpy_does(place: Path, scorer: str) -> None:
    bundle = Bundle.open(place / "bundle")
    recipe, preprocess = bundle.recipe(scorer), bundle.manifest.preprocess
    spec = bundle.manifest.graph("fp32", SCORERS[scorer].head)
    frames = [read_frame(path, preprocess) for path in sorted((place / "data/test").rglob("*.png"))]
    with open_backend(bundle.read(spec.file), spec) as backend:
        backend.set_inputs(neutral_inputs(spec.head, bundle.manifest.encoder))
        features = extract(backend, frames, view_of(None, bundle.manifest))
    expected, groups = score_features(SCORERS[scorer], recipe.arrays, features)
    with Detector.load(bundle, scorer) as detector:
        verdicts = [detector(frame) for frame in frames]
    np.testing.assert_allclose([v.score for v in verdicts], expected, rtol=2e-3, atol=2e-3)
    assert [v.group for v in verdicts] == groups.tolist()


@pytest.mark.parametrize("scorer", ["patchcore", "padim"])
def test_the_heat_map_is_hot_on_the_scratch(place: Path, scorer: str) -> None:
    with Detector.load(place / "bundle", scorer) as detector:
        verdict = detector(place / "data/test/scratch/000.png")
    assert verdict.anomaly_map is not None
    assert verdict.anomaly_map.shape == (SIZE, SIZE)
    row, column = np.unravel_index(verdict.anomaly_map.argmax(), verdict.anomaly_map.shape)
    # The scratch runs along the diagonal; a patch is 16 pixels wide.
    assert abs(int(row) - int(column)) <= 20


def test_a_verdict_does_not_depend_on_other_images(place: Path) -> None:
    first, second = sorted((place / "data/test/good").glob("*.png"))[:2]
    with Detector.load(place / "bundle", "padim") as detector:
        alone = detector(first).score
        detector(second)
        assert detector(first).score == alone


def test_precisions_agree(place: Path) -> None:
    text = orinspect("check", place / "bundle")
    assert text.count("ok ") == 6
    parity = Bundle.open(place / "bundle").manifest.parity
    assert parity["fp16"]["embedding_cosine_min"] > 0.999
    assert parity["int8"]["embedding_cosine_min"] > 0.98


def test_embeddings_and_bench_are_written(place: Path) -> None:
    orinspect("embed", place / "bundle", place / "data/test", "--out", place / "embeddings.npz")
    with np.load(place / "embeddings.npz") as file:
        assert file["embedding"].shape == (30, Bundle.open(place / "bundle").manifest.encoder.embedding_dim)
        assert len(set(file["image"])) == 30
    orinspect("bench", place / "bundle", "--runs", "10", "--out", place / "bench.json")
    bench = json.loads((place / "bench.json").read_bytes())
    assert [row["precision"] for row in bench["latencies"]] == ["fp32", "fp16", "int8"]
    assert all(0 < row["least_ms"] <= row["p50_ms"] <= row["p99_ms"] for row in bench["latencies"])
    assert bench["conditions"]["versions"]["onnxruntime"]


def test_a_recipe_of_another_graph_is_refused(place: Path, tmp_path: Path) -> None:
    other = tmp_path / "bundle"
    good = place / "data/train/good"
    orinspect("pretrain", good, "--out", tmp_path / "run", "--epochs", "0", "--size", "96")
    orinspect("export", tmp_path / "run", "--out", other, "--calibration", good, "--precision", "fp32")
    recipe = Bundle.open(place / "bundle").recipe("padim")
    Bundle.open(other).add_recipe(recipe)
    command = [sys.executable, "-m", "orinspect_edge_runtime.cli", "score", str(other), str(good)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "another fp32 graph; fit it again" in done.stderr
