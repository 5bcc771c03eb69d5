"""Several recipes of one bundle at hand: switching is exact, instant, and safe while other threads judge."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.errors import RecipeError
from orinspect_edge_runtime.fit import fit_recipe
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.preprocess import Frame
from orinspect_edge_runtime.recipe_edit import mark_good

NAMES = ("dark", "bright", "whole")


def picture(seed: int, brightness: int) -> Frame:
    rng = np.random.default_rng(seed)
    return Frame(
        rng.integers(brightness - 10, brightness + 10, (32, 32, 3), dtype=np.uint8), f"{seed}-{brightness}.png"
    )


@pytest.fixture(scope="module")
def folder(real_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several") / "bundle"
    shutil.copytree(real_bundle, folder)
    for name, brightness, scorer in (("dark", 60, "patchcore"), ("bright", 200, "patchcore"), ("whole", 60, "knn")):
        frames = [picture(n, brightness) for n in range(16)]
        bundle = Bundle.open(folder)
        bundle.add_recipe(fit_recipe(bundle, frames, name, FitOptions(scorer=scorer, false_alarm=0.1, groups=1)))
    return folder


def test_every_recipe_judges_as_if_it_were_loaded_alone(folder: Path) -> None:
    frames = [picture(30, 60), picture(31, 200)]
    alone = {}
    for name in NAMES:
        with Detector.load(folder, name) as detector:
            alone[name] = [detector(frame) for frame in frames]
    with Detector.load(folder, "dark", recipes=["bright", "whole"]) as detector:
        assert detector.ready == NAMES
        for name in ("bright", "dark", "whole", "bright", "whole", "dark"):
            detector.use(name)
            assert detector.recipe.name == name
            for frame, expected in zip(frames, alone[name], strict=True):
                verdict = detector(frame)
                assert (verdict.score, verdict.threshold) == (expected.score, expected.threshold)
                assert verdict.probability == expected.probability
                assert (verdict.anomaly_map is None) == (expected.anomaly_map is None)
    assert alone["dark"][1].is_anomalous and not alone["bright"][1].is_anomalous


def test_switching_costs_less_than_a_hundredth_of_getting_ready(folder: Path) -> None:
    """A ratio of medians, because a deadline would measure what else this machine is doing."""
    with Detector.load(folder, "dark", recipes=["bright"]) as detector:
        switches, loads = [], []
        for _ in range(21):
            start = time.perf_counter()
            for name in ("bright", "dark") * 50:
                detector.use(name)
            switches.append((time.perf_counter() - start) / 100)
            start = time.perf_counter()
            detector.prepare("bright")
            loads.append(time.perf_counter() - start)
        # Opening the smallest recipe there is takes a millisecond and more.
        assert statistics.median(switches) < 0.01 * statistics.median(loads)


def test_a_recipe_that_is_not_ready_is_told(folder: Path) -> None:
    with Detector.load(folder, "dark") as detector:
        with pytest.raises(RecipeError, match=r"'bright' is not ready .ready: dark.*prepare it"):
            detector.use("bright")
        with pytest.raises(RecipeError, match="no recipe 'none'"):
            detector.prepare("none")
        detector.prepare("bright")
        detector.use("bright")
        assert detector.recipe.name == "bright"


def test_a_recipe_of_another_graph_is_not_made_ready(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    bundle = bundle.change_recipe(
        "bright", lambda now, recipe, file: dataclasses.replace(recipe, graph_sha256="0" * 64)
    )
    with Detector.load(bundle, "dark") as detector:
        with pytest.raises(RecipeError, match="fitted through another fp32 graph"):
            detector.prepare("bright")
        assert detector.ready == ("dark",)


def test_every_verdict_is_of_one_recipe_while_another_thread_switches(folder: Path) -> None:
    frame = picture(40, 60)
    with Detector.load(folder, "dark", recipes=["bright"], throughput=True) as detector:
        expected = set()
        for name in ("bright", "dark"):
            detector.use(name)
            verdict = detector(frame)
            expected.add((verdict.score, verdict.threshold))
        stop, seen = threading.Event(), set()

        def switch() -> None:
            while not stop.is_set():
                for name in ("bright", "dark"):
                    detector.use(name)
                    time.sleep(0.0001)

        thread = threading.Thread(target=switch)
        thread.start()
        for _ in range(300):
            verdict = detector(frame)
            seen.add((verdict.score, verdict.threshold))
        stop.set()
        thread.join()
    assert len(expected) == 2
    assert seen <= expected


def test_refresh_takes_over_edits_and_new_fits_of_ready_recipes(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "bundle")
    frame = picture(50, 200)
    with Detector.load(tmp_path / "bundle", "dark", recipes=["bright"]) as detector:
        assert detector.refresh() == ()
        assert detector(frame).is_anomalous
        mark_good(tmp_path / "bundle", "dark", frame)
        assert detector(frame).is_anomalous, "only refresh takes it over"
        assert detector.refresh() == ("dark",)
        assert not detector(frame).is_anomalous
        detector.bundle.remove_recipe("bright")
        assert detector.refresh() == ()
        detector.use("bright")
        assert not detector(frame).is_anomalous


def test_golden_is_replayed_without_changing_what_judges(folder: Path) -> None:
    with Detector.load(folder, "dark", recipes=["bright"]) as detector:
        for name in ("dark", "bright"):
            detector.use(name)
            before = detector(picture(60, 60)).score
            detector.require_golden()
            assert detector(picture(60, 60)).score == before
