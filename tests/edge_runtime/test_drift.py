"""The drift monitor: quiet on what it knows, quick on what it does not, and the same after a restart."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from shutil import copy, copytree
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orinspect_edge_runtime.appearance import appearance
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.drift import DriftMonitor
from orinspect_edge_runtime.drift_reference import (
    PARTS,
    RUN_LENGTH,
    Chart,
    alarm_limit,
    drift_arrays,
    scores_part,
    statistic,
)
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.fit import fit_recipe
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.preprocess import Frame, PreprocessSpec, fit_to_model, list_images, read_frame
from orinspect_edge_runtime.recipe import Recipe, from_bytes, to_bytes

DIM, GOOD = 9, 240
SPEC = PreprocessSpec(32, 32)
THIRD = Chart(1 / 3, 0.06)
MIXING = np.random.default_rng(7).standard_normal((DIM, DIM))


class Line:
    """A line whose parts are of two kinds: scores, embeddings and pictures; all drawn from one seed."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def score(self) -> float:
        return float(self._rng.standard_normal())

    def embedding(self) -> np.ndarray:
        kind = self._rng.integers(2)
        return (self._rng.standard_normal(DIM) @ MIXING + 30 * kind * np.eye(DIM)[0]).astype(np.float32)

    def pixels(self, gain: float = 1.0) -> np.ndarray:
        light = self._rng.normal(120, 4)
        return (self._rng.normal(light, 15, (32, 32, 3)).clip(0, 255) * gain).astype(np.uint8)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    from conftest import make_recipe

    line = Line(0)
    embeddings = np.stack([line.embedding() for _ in range(GOOD)])
    looks = np.stack([appearance(line.pixels()) for _ in range(GOOD)])
    scores = np.array([line.score() for _ in range(GOOD)], np.float32)
    groups = (embeddings[:, 0] > 15).astype(np.intp)
    rule = {
        "group_mean": np.zeros(DIM, np.float32),
        "group_projection": np.zeros((DIM, 2), np.float32),
        "group_bias": np.zeros(2, np.float32),
    }
    rule["group_projection"][0, 1] = 1
    rule["group_bias"][1] = -15
    arrays = drift_arrays(embeddings, looks, groups, scores)
    made = make_recipe(arrays=rule | arrays, calibration_scores=np.sort(scores))
    return from_bytes(to_bytes(made), "here")


def shown(monitor: DriftMonitor, line: Line, count: int, change: Callable[..., Any] = lambda *seen: seen) -> int:
    """Show images to the monitor until it alarms; how many it took, 0 when it never did."""
    for number in range(1, count + 1):
        if monitor.update(*change(line.score(), line.embedding(), line.pixels())).alarm:
            return number
    return 0


def test_good_images_set_off_no_alarm(recipe: Recipe) -> None:
    monitor = DriftMonitor(recipe, SPEC)
    assert monitor.parts == tuple(PARTS)
    assert shown(monitor, Line(1), 3000) == 0
    assert 0 <= max(monitor.state.levels.values()) < 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda s, e, p: (s + 1.5, e, p), "risen"),
        (lambda s, e, p: (s - 1.5, e, p), "fallen"),
        (lambda s, e, p: (s, e + 2.5 * MIXING[3].astype(np.float32), p), "encoder"),
        (lambda s, e, p: (s, e, (p * 0.85).astype(np.uint8)), "darker (brightness -1"),
        (lambda s, e, p: (s, e, (0.5 * p + 60).astype(np.uint8)), "flatter (contrast -"),
    ],
)
def test_each_part_alarms_within_fifty_images_and_says_why(
    recipe: Recipe, change: Callable[..., Any], word: str
) -> None:
    for seed in range(5):
        monitor = DriftMonitor(recipe, SPEC)
        assert shown(monitor, Line(100 + seed), 100) == 0
        took = shown(monitor, Line(200 + seed), 50, change)
        assert took > 0
        assert word in monitor.state.reason
        assert monitor.state.alarmed_at == 100 + took


@pytest.mark.parametrize(("gain", "word"), [(0.97, "less"), (1.03, "more")])
def test_a_small_change_of_light_is_told_as_such(recipe: Recipe, gain: float, word: str) -> None:
    found = []
    for seed in range(5):
        monitor, line = DriftMonitor(recipe, SPEC), Line(300 + seed)
        levels = []
        for _ in range(200):
            state = monitor.update(line.score(), line.embedding(), np.round(line.pixels() * gain).astype(np.uint8))
            levels.append((state.levels["light"], state.levels["appearance"]))
        assert (told := re.search(rf"there is {word} light, by (\d)% or more", state.reason)) and int(told[1]) <= 3
        found.append(np.mean(levels, axis=0))
    light, appearance = np.mean(found, axis=0)
    assert light > 1.2 * appearance, "one direction is surer than five"


def test_a_few_defective_parts_are_no_drift_but_many_are(recipe: Recipe) -> None:
    def defects(share: float) -> Callable[..., Any]:
        rng = np.random.default_rng(3)
        return lambda s, e, p: (s + 50, e + 100, p) if rng.random() < share else (s, e, p)

    assert shown(DriftMonitor(recipe, SPEC), Line(5), 1000, defects(0.02)) == 0
    assert shown(DriftMonitor(recipe, SPEC), Line(6), 50, defects(0.7)) > 0


def test_one_kind_alone_is_no_drift(recipe: Recipe) -> None:
    monitor, line = DriftMonitor(recipe, SPEC), Line(8)
    embeddings = (line.embedding() for _ in range(2000))
    for embedding in (e for e in embeddings if e[0] > 15):
        assert not monitor.update(line.score(), embedding, line.pixels()).alarm


def test_an_alarm_stays_until_the_reset(recipe: Recipe) -> None:
    monitor, line = DriftMonitor(recipe, SPEC), Line(9)
    assert shown(monitor, line, 50, lambda s, e, p: (s + 3, e, p))
    first = monitor.state
    for _ in range(300):
        state = monitor.update(line.score(), line.embedding(), line.pixels())
    assert state.alarm and state.alarmed_at == first.alarmed_at and first.reason in state.reason
    assert state.levels["scores"] < 1
    monitor.reset()
    assert monitor.state.images == 0 and not monitor.state.alarm


def test_a_restart_changes_nothing(recipe: Recipe) -> None:
    steady, line = DriftMonitor(recipe, SPEC), Line(10)
    seen = [(line.score(), line.embedding(), line.pixels()) for _ in range(60)]
    for one in seen:
        state = steady.update(*one)
    broken = DriftMonitor(recipe, SPEC)
    for one in seen[:25]:
        broken.update(*one)
    saved = json.loads(json.dumps(broken.save()))
    assert len(json.dumps(saved)) < 5000
    again = DriftMonitor(recipe, SPEC).load(saved)
    for one in seen[25:]:
        assert again.update(*one) is not None
    assert again.state == state


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s.pop("looks"),
        lambda s: s.update(recipe="0" * 16),
        lambda s: s["running"].pop("scores"),
        lambda s: s["running"].update(scores=[float("nan")]),
        lambda s: s.update(running=[1]),
        lambda s: s.update(looks="many"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(recipe: Recipe, damage: Callable[[dict[str, Any]], Any]) -> None:
    monitor = DriftMonitor(recipe, SPEC)
    shown(monitor, Line(11), 5)
    before, saved = monitor.state, json.loads(json.dumps(monitor.save()))
    damage(saved)
    with pytest.raises(InputError, match="drift state"):
        monitor.load(saved)
    assert monitor.state == before


def test_what_is_not_finite_is_refused_and_leaves_no_trace(recipe: Recipe) -> None:
    monitor, line = DriftMonitor(recipe, SPEC), Line(12)
    before = monitor.state
    with pytest.raises(InputError, match="not finite"):
        monitor.update(float("nan"), line.embedding())
    with pytest.raises(InputError, match="not finite"):
        monitor.update(0.0, np.full(DIM, np.inf, np.float32))
    assert monitor.state == before


def test_pictures_may_be_left_out(recipe: Recipe) -> None:
    monitor, line = DriftMonitor(recipe, SPEC), Line(13)
    for _ in range(50):
        state = monitor.update(line.score() + 3, line.embedding())
    assert state.alarm and state.levels["appearance"] == 0


def test_recipes_of_few_images_or_of_old_have_no_parts(tiny_recipe: Callable[..., Recipe]) -> None:
    monitor = DriftMonitor(tiny_recipe(), SPEC)
    assert monitor.parts == ()
    assert not monitor.update(1e6, np.zeros(DIM, np.float32)).alarm
    few = drift_arrays(np.zeros((19, DIM), np.float32), None, np.zeros(19, np.intp), np.zeros(19))
    assert few == {}


def test_images_all_alike_do_not_break_it() -> None:
    arrays = drift_arrays(np.ones((30, DIM), np.float32), None, np.zeros(30, np.intp), np.zeros(30))
    assert all(np.isfinite(array).all() for array in arrays.values())
    from conftest import make_recipe

    recipe = make_recipe(arrays=make_recipe().arrays | arrays, calibration_scores=np.zeros(30, np.float32))
    state = DriftMonitor(recipe, SPEC).update(0.0, np.ones(DIM, np.float32))
    assert (state.alarm, state.levels) == (False, {}), "what never varied says nothing"


def test_a_picture_counts_the_same_whole_reduced_or_kept(real_bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for number in range(30):
        light = Image.fromarray(rng.integers(90, 160, (6, 8, 3), dtype=np.uint8)).resize((800, 600))
        noisy = np.asarray(light) + rng.normal(0, 12, (600, 800, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{number:02d}.jpg", quality=95)
    copytree(real_bundle, tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    spec, paths = bundle.manifest.preprocess, list_images([tmp_path])
    whole = [read_frame(path, spec) for path in paths]
    reduced = [read_frame(path, spec, reduced=True) for path in paths]
    kept = [Frame(fit_to_model(frame.pixels, spec), frame.source) for frame in whole]
    assert {frames[0].pixels.shape[0] for frames in (whole, reduced, kept)} == {600, 75, 32}
    recipe = fit_recipe(bundle, iter(reduced), "part", FitOptions())
    levels = []
    for frames in (reduced, whole, kept):
        monitor = DriftMonitor(recipe, spec)
        for frame in frames:
            state = monitor.update(0.0, np.zeros(9, np.float32), frame.pixels)
        levels.append(state.levels["appearance"])
    assert max(levels) < 0.5 and np.ptp(levels) < 0.1


def test_the_run_length_is_the_one_stated() -> None:
    rng = np.random.default_rng(0)
    limit = alarm_limit([rng.standard_normal((2000, 3)) for _ in range(3)], THIRD, 0)
    chains, steps, alarms = 2000, 1500, 0
    running = np.zeros((chains, 3))
    for step in range(steps + 50):
        running += THIRD.forgetting * (rng.standard_normal((chains, 3)) - running)
        over = statistic(running, THIRD.forgetting) >= limit
        if step >= 50:
            alarms += int(over.sum())
            running[over] = 0
    expected = chains * steps / (3 * RUN_LENGTH)
    assert expected / 2.5 < alarms < expected * 2.5
    assert sum(chart.share for chart in PARTS.values()) == pytest.approx(1)


def test_few_images_are_off_by_chance_and_are_not_taken_for_a_changing_line() -> None:
    """A stretch of a hundred has a mean of its own. Taken as it is it raises the limit; what really changes must."""
    rng = np.random.default_rng(2)
    many = alarm_limit([rng.standard_normal((2000, 4)) for _ in range(3)], THIRD, 0)
    few = np.mean([alarm_limit([rng.standard_normal((100, 4)) * np.sqrt(1.01) - rng.standard_normal(4) / np.sqrt(200)
                                for _ in range(3)], THIRD, seed) for seed in range(4)])  # fmt: skip
    assert many < few < 1.35 * many, "their own error remains, a good tenth of the variance of the running mean"
    changing = [rng.standard_normal((100, 4)) + step for step in (-1, 0, 1)]
    assert alarm_limit(changing, THIRD, 0) > 3 * many


def test_scores_are_ranked_among_others_for_the_limit() -> None:
    """Ranked among themselves their mean is exactly that of the line, which that of so few never is."""
    rng = np.random.default_rng(3)
    limits = [scores_part(rng.standard_normal(n), np.zeros(n, np.intp)).limit for n in (60, 60, 60, 3000)]
    assert np.mean(limits[:3]) > 1.15 * limits[3]


def test_neighbours_that_are_alike_raise_the_limit() -> None:
    rng = np.random.default_rng(1)
    free = rng.standard_normal((900, 2))
    slow = np.zeros_like(free)
    for row in range(1, len(free)):
        slow[row] = 0.9 * slow[row - 1] + np.sqrt(1 - 0.9**2) * free[row]
    assert alarm_limit(np.split(slow, 3), THIRD, 0) > 3 * alarm_limit(np.split(free, 3), THIRD, 0)


def test_the_command_tells_a_folder_from_another(
    orinspect: Callable[..., Any], real_bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    bundle, dark = tmp_path / "bundle", tmp_path / "dark"
    copytree(real_bundle, bundle)
    dark.mkdir()
    for path in sorted((pictures / "train/good").iterdir()):
        Image.fromarray((np.asarray(Image.open(path)) * 0.7).astype(np.uint8)).save(dark / path.name)
    assert orinspect("fit", bundle, pictures / "train/good", "--false-alarm", "0.1").code == 0
    same = orinspect("drift", bundle, pictures / "test/good", "--json")
    assert same.code == 0
    assert json.loads(same.out)["images"] == 6 and not json.loads(same.out)["alarm"]
    other = orinspect("drift", bundle, dark)
    assert other.code == 1
    assert "orinspect: drift, seen at image " in other.err and "darker (brightness -" in other.err
    (dark / "00.png").write_bytes(b"no image")
    (dark / "01.png").unlink()
    again = orinspect("drift", bundle, dark, "--json")
    at = json.loads(again.out)["alarmed_at"]
    assert again.code == 1 and at > 1
    # 00.png could not be read and 01.png is gone: image 1 is 02.png.
    assert f"seen at image {at} ({at + 1:02d}.png)" in again.err


def test_the_command_needs_a_recipe_with_a_reference(
    orinspect: Callable[..., Any], real_bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    copytree(real_bundle, bundle)
    few = sorted((pictures / "train/good").iterdir())[:8]
    (tmp_path / "few").mkdir()
    for path in few:
        copy(path, tmp_path / "few")
    assert orinspect("fit", bundle, tmp_path / "few", "--false-alarm", "0.3").code == 0
    refused = orinspect("drift", bundle, few[0])
    assert refused.code == 2 and "fit it again on 20 images or more" in refused.err
