"""The searching backend against the graph's own flat search, through the tiny bundle's real graph."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orinspect_edge_runtime.backends import open_backend, searching
from orinspect_edge_runtime.backends.searching import SearchingBackend, grid_of
from orinspect_edge_runtime.bundle import GOLDEN, Bundle
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.errors import BundleError, CheckFailed, RecipeError
from orinspect_edge_runtime.heads import OTHER_GROUP_PENALTY
from orinspect_edge_runtime.manifest import TensorSpec
from orinspect_edge_runtime.recipe import Recipe

# Of the large banks here; the tiny graph has 16 patches.
ROWS = 2000


@pytest.fixture(autouse=True)
def fewest_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "FEWEST_PAIRS", 16 * ROWS)


def arrays(rows: int, groups: int = 2) -> dict[str, np.ndarray]:
    """A recipe for the tiny graph: a whitening, a bank of two groups, and a rule by the image's brightness."""
    rng = np.random.default_rng(0)
    bank, owners = rng.normal(0, 0.5, (rows, 3)), np.arange(rows) % groups
    penalties = np.where(np.arange(groups)[:, None] != owners, -OTHER_GROUP_PENALTY, 0)
    rule = np.zeros((9, groups))
    rule[:3, -1] = 1
    values = {
        "group_mean": np.full(9, 0.5),
        "group_projection": rule,
        "group_bias": np.zeros(groups),
        "score_offset": np.linspace(0.1, 0.2, groups),
        "score_scale": np.linspace(3, 4, groups),
        "patch_mean": np.array([0.4, 0.5, 0.6]),
        "patch_projection": rng.standard_normal((3, 3)),
        "bank": np.concatenate([bank.T, -(bank**2).sum(1)[None], penalties]),
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


def frames() -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.concatenate([rng.integers(0, most, (8, 32, 32, 3), dtype=np.uint8) for most in (90, 256)])


def test_scores_and_maps_are_those_of_the_graph(real_bundle: Path) -> None:
    bundle, recipe = Bundle.open(real_bundle), arrays(ROWS)
    spec = bundle.manifest.graphs[0]
    with open_backend(bundle.read(spec.file), spec, threads=1) as backend:
        assert isinstance(backend, SearchingBackend)
        backend.set_inputs(recipe)
        assert f"{ROWS} rows searched in cells" in backend.description
        ours = [backend.run(frame[None]) for frame in frames()]
        together = backend.run(frames())
        backend._inner.set_inputs(recipe)
        for frame, found in zip(frames(), ours, strict=True):
            flat = backend._inner.run(frame[None])
            np.testing.assert_allclose(found["score"], flat["score"], rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(found["embedding"], flat["embedding"])
            assert found["anomaly_map"].shape == flat["anomaly_map"].shape
            assert found["anomaly_map"].dtype == found["score"].dtype == np.float32
        np.testing.assert_allclose(together["score"], [found["score"][0] for found in ours], rtol=1e-5, atol=1e-6)


def test_small_banks_are_left_to_the_graph_and_recipes_can_be_changed(real_bundle: Path) -> None:
    bundle = Bundle.open(real_bundle)
    spec = bundle.manifest.graphs[0]
    with open_backend(bundle.read(spec.file), spec, threads=1) as backend:
        plain = backend.description
        for rows in (50, ROWS, 50):
            backend.set_inputs(arrays(rows))
            assert (backend.description == plain) == (rows == 50)
            small = backend.run(frames()[:1])
        backend._inner.set_inputs(arrays(50))
        np.testing.assert_array_equal(small["score"], backend._inner.run(frames()[:1])["score"])


def test_prepared_recipes_are_searched_by_their_own_size(real_bundle: Path) -> None:
    bundle = Bundle.open(real_bundle)
    spec, frame = bundle.manifest.graphs[0], frames()[:1]
    with open_backend(bundle.read(spec.file), spec, threads=1) as backend:
        backend.set_inputs(arrays(50))
        prepared = {rows: backend.prepare(arrays(rows)) for rows in (60, ROWS)}
        found = {rows: backend.run(frame, one)["score"] for rows, one in prepared.items()}
        here = backend.run(frame)["score"]
        for rows, score in (*found.items(), (50, here)):
            backend.set_inputs(arrays(rows))
            np.testing.assert_array_equal(backend.run(frame)["score"], score)
        for one in prepared.values():
            backend.release(one)


def test_an_array_that_does_not_fit_is_refused_and_the_recipe_before_it_stays(real_bundle: Path) -> None:
    bundle = Bundle.open(real_bundle)
    spec = bundle.manifest.graphs[0]
    with open_backend(bundle.read(spec.file), spec, threads=1) as backend:
        backend.set_inputs(arrays(ROWS))
        before = backend.run(frames()[:1])["score"]
        with pytest.raises(RecipeError, match="fit it again"):
            backend.set_inputs(arrays(ROWS) | {"patch_mean": np.zeros(4, np.float32)})
        np.testing.assert_array_equal(backend.run(frames()[:1])["score"], before)


def test_features_that_are_no_numbers_give_no_score(real_bundle: Path) -> None:
    spec = Bundle.open(real_bundle).manifest.graphs[0]
    bank = searching.Bank(arrays(ROWS), spec)
    for broken in (np.nan, np.inf):
        patches = np.zeros((16, 3), np.float32)
        patches[3, 1] = broken
        score, anomaly_map = bank.score(np.zeros(9, np.float32), patches)
        assert np.isnan(score)
        assert np.isnan(anomaly_map).all()


@pytest.mark.parametrize("odd", ["no rows in a group", "a row that is no number", "a whitening that is none"])
def test_odd_recipes_are_left_to_the_graph(real_bundle: Path, odd: str) -> None:
    bundle, recipe = Bundle.open(real_bundle), arrays(ROWS)
    if odd == "no rows in a group":
        recipe["bank"][5] = -OTHER_GROUP_PENALTY
    elif odd == "a row that is no number":
        recipe["bank"][1, 7] = np.nan
    else:
        recipe["patch_projection"][0, 0] = np.inf
    spec = bundle.manifest.graphs[0]
    with open_backend(bundle.read(spec.file), spec, threads=1) as backend:
        plain = backend.description
        backend.set_inputs(recipe)
        assert backend.description == plain
        backend.run(frames()[:1])


def test_a_graph_opened_for_a_large_bank_has_no_head(real_bundle: Path) -> None:
    """Opened for it, every bank is searched here, small ones too, and scores are those of the whole graph."""
    bundle, frame = Bundle.open(real_bundle), frames()[3:4]
    spec = bundle.manifest.graphs[0]
    read = functools.partial(bundle.read, spec.file)
    with (
        open_backend(read, spec, threads=1, arrays=arrays(ROWS)) as headless,
        open_backend(read, spec, threads=1, arrays=arrays(50)) as whole,
    ):
        for rows in (ROWS, 50, ROWS):
            for backend in (headless, whole):
                backend.set_inputs(arrays(rows))
            assert set(headless._inner.run(frame)) == {"embedding", "patches"}
            assert "anomaly_map" in whole._inner.run(frame)
            found, expected = headless.run(frame), whole.run(frame)
            assert set(found) == set(expected)
            np.testing.assert_array_equal(found["embedding"], expected["embedding"])
            np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-4, atol=1e-4)
        with pytest.raises(RecipeError, match="group without rows"):
            headless.set_inputs(arrays(ROWS) | {"bank": np.full((6, ROWS), -1, np.float32)})


def test_golden_is_replayed_through_the_graph_without_a_head(
    real_bundle: Path, tmp_path: Path, tiny_recipe: Callable[..., Recipe], make_bundle: Callable[..., Bundle]
) -> None:
    spec = Bundle.open(real_bundle).manifest.graphs[0]
    graph = Bundle.open(real_bundle).read(spec.file)
    with open_backend(graph, spec, threads=1) as backend:
        backend.set_inputs(arrays(50))
        outputs = backend.run(frames())
    for shift, passes in ((0, True), (1, False)):
        golden = {
            "frames": frames(),
            "embedding": outputs["embedding"],
            "score_patchcore": np.roll(outputs["score"], shift),
        }
        file = io.BytesIO()
        np.savez(file, **golden, **{f"patchcore.{name}": array for name, array in arrays(50).items()})
        bundle = make_bundle(tmp_path / str(shift), {spec.file: graph, GOLDEN: file.getvalue()})
        sha256 = bundle.manifest.files[spec.file].sha256
        bundle = bundle.add_recipe(tiny_recipe("large", arrays=arrays(ROWS), graph_sha256=sha256))
        with Detector.load(bundle, "large", threads=1) as detector:
            before = detector(frames()[0]).score
            with contextlib.nullcontext() if passes else pytest.raises(CheckFailed, match="does not reproduce golden"):
                detector.require_golden()
            assert f"{ROWS} rows searched in cells" in detector.description
            assert detector(frames()[0]).score == before


def test_a_damaged_graph_is_the_bundles_fault(real_bundle: Path) -> None:
    spec = Bundle.open(real_bundle).manifest.graphs[0]
    with pytest.raises(BundleError, match="not an ONNX model; copy the bundle again"):
        open_backend(b"no graph", spec, arrays=arrays(ROWS))


@pytest.mark.parametrize(
    ("size", "positions", "grid"),
    [((224, 224), 784, (28, 28)), ((64, 128), 32, (4, 8)), ((96, 96), 35, None), ((96, 160), 15, (3, 5))],
)
def test_the_grid_is_read_off_the_sizes(
    real_bundle: Path, size: tuple[int, int], positions: int, grid: tuple[int, int] | None
) -> None:
    spec = Bundle.open(real_bundle).manifest.graphs[0]
    sized = (
        TensorSpec("anomaly_map", "float32", ("batch", *size)),
        TensorSpec("patches", "float32", ("b", positions, 3)),
    )
    assert grid_of(dataclasses.replace(spec, outputs=sized)) == grid
