"""The whole journey on small rendered images, through the commands a user types; and what must agree at its joints."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the journey needs the train and export extras")

from orinspect_edge_runtime import Bundle, Detector
from orinspect_edge_runtime import manifest as manifests
from orinspect_edge_runtime.backends import open_backend
from orinspect_edge_runtime.bundle import GOLDEN, MANIFEST
from orinspect_edge_runtime.features import extract, score_features
from orinspect_edge_runtime.heads import neutral_inputs
from orinspect_edge_runtime.manifest import FileEntry
from orinspect_edge_runtime.preprocess import read_frame
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_edge_runtime.tiling import view_of

SIZE = 64
# Recipes with low-rank covariances, and with ratios of likelihoods.
RANKED, BOTH_RANKED = "padim-of-rank-8", "padim_mahalanobis-of-rank-8"
RATIO, BOTH_RATIO = "padim-ratio", "padim_mahalanobis-ratio-of-rank-8"
CHOSEN: dict[str, tuple[str, ...]] = {
    RANKED: ("--rank", "8"),
    BOTH_RANKED: ("--rank", "8"),
    RATIO: ("--likelihood-ratio",),
    BOTH_RATIO: ("--likelihood-ratio", "--rank", "8"),
}


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
    orinspect("student", folder / "run", good, "--out", folder / "taught", "--steps", "100")
    # Forty plates that differ by noise alone have no order to keep: the budget is as loose as they are alike.
    budget = ("--min-rank-correlation", "0.97", "--max-flips", "0.1")
    orinspect("export", folder / "taught", "--out", folder / "bundle", "--calibration", good, *budget)
    for scorer in SCORERS:
        orinspect("fit", folder / "bundle", good, "--recipe", scorer, "--scorer", scorer, "--false-alarm", "0.05")
    for name, chosen in CHOSEN.items():
        asked = ("--scorer", name.partition("-")[0], *chosen, "--false-alarm", "0.05")
        orinspect("fit", folder / "bundle", good, "--recipe", name, *asked)
    return folder


@pytest.mark.parametrize("name", [*SCORERS, *CHOSEN])
def test_every_recipe_finds_scratches(place: Path, name: str) -> None:
    found = json.loads(orinspect("evaluate", place / "bundle", place / "data", "--recipe", name, "--json"))
    assert found["auroc"] > 0.95
    assert (found["good_images"], found["defective_images"]) == (15, 15)


@pytest.mark.parametrize("name", [*SCORERS, *CHOSEN])
def test_the_graph_scores_as_numpy_does(place: Path, name: str) -> None:
    bundle = Bundle.open(place / "bundle")
    recipe, preprocess = bundle.recipe(name), bundle.manifest.preprocess
    scorer = SCORERS[recipe.scorer]
    spec = bundle.manifest.graph("fp32", scorer.head)
    frames = [read_frame(path, preprocess) for path in sorted((place / "data/test").rglob("*.png"))]
    with open_backend(bundle.read(spec.file), spec) as backend:
        backend.set_inputs(neutral_inputs(spec.head, bundle.manifest.encoder))
        features = extract(backend, frames, view_of(None, bundle.manifest))
    expected, groups = score_features(scorer, recipe.arrays, features)
    with Detector.load(bundle, name) as detector:
        verdicts = [detector(frame) for frame in frames]
    np.testing.assert_allclose([v.score for v in verdicts], expected, rtol=2e-3, atol=2e-3)
    assert [v.group for v in verdicts] == groups.tolist()


def test_a_rank_makes_the_recipe_and_what_the_graph_reads_smaller(place: Path) -> None:
    bundle = Bundle.open(place / "bundle")
    full, ranked = (bundle.recipe(name).arrays for name in ("padim", RANKED))
    assert ranked["patch_factors"].shape[2:] == (full["patch_factors"].shape[2], 8)
    sizes = {name: bundle.manifest.files[bundle.manifest.recipes[name]].bytes for name in ("padim", RANKED)}
    assert sizes[RANKED] < 0.4 * sizes["padim"]
    listed = orinspect("recipe", "list", place / "bundle")
    assert "padim of rank 8 fp32" in listed and "padim_mahalanobis of rank 8 fp32" in listed
    assert f"{RATIO}: padim by likelihood ratio fp32" in listed and "of rank 8 by likelihood ratio fp32" in listed
    predicted = [
        json.loads(orinspect("predict", place / "bundle", "--head", "padim", *size, "--json"))["latency_ms"]["value"]
        for size in ((), ("--size", "factor_columns=8"))
    ]
    assert predicted[1] < predicted[0], "without a size covariances are full"


@pytest.mark.parametrize("name", ["patchcore", "padim", "padim_mahalanobis", "student", RANKED])
def test_the_heat_map_is_hot_on_the_scratch(place: Path, name: str) -> None:
    with Detector.load(place / "bundle", name) as detector:
        verdict = detector(place / "data/test/scratch/000.png")
    assert verdict.anomaly_map is not None
    assert verdict.anomaly_map.shape == (SIZE, SIZE)
    row, column = np.unravel_index(verdict.anomaly_map.argmax(), verdict.anomaly_map.shape)
    # The scratch runs along the diagonal; a patch is 16 pixels wide.
    assert abs(int(row) - int(column)) <= 20


def test_the_map_of_padim_and_mahalanobis_is_that_of_padim(place: Path) -> None:
    picture = place / "data/test/scratch/000.png"
    maps, scores = [], []
    for name in ("padim", "padim_mahalanobis"):
        with Detector.load(place / "bundle", name) as detector:
            verdict = detector(picture)
        assert verdict.anomaly_map is not None
        maps.append(verdict.anomaly_map.ravel())
        scores.append(verdict.score)
    slope, _ = np.polyfit(*maps, 1)
    assert np.corrcoef(*maps)[0, 1] > 0.9999 and 0.7 < slope < 1.4, "in standard deviations of the same score"
    assert scores[0] != scores[1]


def test_a_verdict_does_not_depend_on_other_images(place: Path) -> None:
    first, second = sorted((place / "data/test/good").glob("*.png"))[:2]
    with Detector.load(place / "bundle", "padim") as detector:
        alone = detector(first).score
        detector(second)
        assert detector(first).score == alone


def test_precisions_agree(place: Path) -> None:
    text = orinspect("check", place / "bundle")
    assert text.count("ok ") == 9
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


def test_a_bundle_of_before_ranks_takes_full_covariances_and_says_that_it_takes_no_others(
    place: Path, tmp_path: Path
) -> None:
    """Its graph has no scales, and as many columns in a factor as dimensions."""
    bundle, good = Bundle.open(place / "bundle"), place / "data/train/good"
    older, recipe = older_bundle(bundle, tmp_path / "bundle"), bundle.recipe("padim")
    graph = older.manifest.files[older.manifest.graph("fp32", "padim").file].sha256
    arrays = {name: array for name, array in recipe.arrays.items() if name != "patch_scales"}
    older.add_recipe(dataclasses.replace(recipe, name="kept", graph_sha256=graph, arrays=arrays))
    orinspect("fit", older.path, good, "--recipe", "new", "--scorer", "padim", "--false-alarm", "0.05")
    pictures = sorted((place / "data/test").rglob("*.png"))[:4]
    found = []
    for path, name in ((bundle.path, "padim"), (older.path, "kept"), (older.path, "new")):
        with Detector.load(path, name, threads=1) as detector:
            found.append([detector(picture).score for picture in pictures])
    assert found[0] == found[1] == found[2]
    refused = ["fit", str(older.path), str(good), "--scorer", "padim", "--rank", "8"]
    done = subprocess.run(
        [sys.executable, "-m", "orinspect_edge_runtime.cli", *refused], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "this bundle's padim graphs take full covariances only: leave --rank away, or export again" in done.stderr


def older_bundle(bundle: Bundle, folder: Path) -> Bundle:
    """The fp32 graphs of a bundle, that of padim without the input `patch_scales`."""
    import onnx

    specs = [bundle.manifest.graph("fp32", head) for head in ("patchcore", "padim")]
    contents = {spec.file: bundle.read(spec.file) for spec in specs}
    padim = onnx.load_from_string(contents[specs[1].file])
    inputs = {value.name: value for value in padim.graph.input}
    positions, dim = (inputs["patch_factors"].type.tensor_type.shape.dim[axis].dim_value for axis in (1, 2))
    padim.graph.input.remove(inputs["patch_scales"])
    padim.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((1, positions), np.float32), "patch_scales"))
    inputs["patch_factors"].type.tensor_type.shape.dim[3].dim_value = dim
    contents[specs[1].file] = padim.SerializeToString()
    shapes = {"patch_factors": ("groups", positions, dim, dim)}
    kept = [
        dataclasses.replace(tensor, shape=shapes.get(tensor.name, tensor.shape))
        for tensor in specs[1].inputs
        if tensor.name != "patch_scales"
    ]
    graphs = (specs[0], dataclasses.replace(specs[1], inputs=tuple(kept)))
    contents[GOLDEN] = bundle.read(GOLDEN)
    files = {name: FileEntry(hashlib.sha256(content).hexdigest(), len(content)) for name, content in contents.items()}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    manifest = dataclasses.replace(bundle.manifest, graphs=graphs, files=files, recipes={})
    (folder / MANIFEST).write_bytes(manifests.to_bytes(manifest))
    return Bundle.open(folder)
