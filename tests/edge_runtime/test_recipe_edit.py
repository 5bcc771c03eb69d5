"""Edits of recipes: a marked false alarm is silent, everything can be taken back to the byte, nothing is half done."""

from __future__ import annotations

import dataclasses
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.errors import CheckFailed, InputError, RecipeError
from orinspect_edge_runtime.features import Features
from orinspect_edge_runtime.fit import fit_recipe
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.preprocess import Frame
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.recipe_edit import copy_recipe, find_image, forget_image, history, mark_good, undo

SIDE = 32


def picture(seed: int, *, spot: int = 0) -> Frame:
    """A plain good part with grain; with a spot of that brightness it is new to the recipe."""
    pixels = np.random.default_rng(seed).integers(90, 110, (SIDE, SIDE, 3), dtype=np.uint8)
    if spot:
        pixels[8:16, 8:16] = spot
    return Frame(pixels, f"line/{seed}-{spot}.png")


@pytest.fixture(scope="module")
def fitted(real_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted") / "bundle"
    shutil.copytree(real_bundle, folder)
    for scorer in ("patchcore", "knn", "mahalanobis"):
        bundle = Bundle.open(folder)
        options = FitOptions(scorer=scorer, false_alarm=0.1, groups=1)
        bundle.add_recipe(fit_recipe(bundle, [picture(n) for n in range(24)], scorer, options))
    return folder


@pytest.fixture
def bundle(fitted: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(fitted, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


def same(a: Recipe, b: Recipe) -> bool:
    """Equal in everything but the log of edits."""
    for field in dataclasses.fields(Recipe):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name == "arrays":
            assert x.keys() == y.keys()
            if any(x[name].tobytes() != y[name].tobytes() or x[name].shape != y[name].shape for name in x):
                return False
        elif isinstance(x, np.ndarray):
            if x.tobytes() != y.tobytes():
                return False
        elif field.name != "edits" and x != y:
            return False
    return True


def test_a_marked_false_alarm_no_longer_alarms(bundle: Bundle) -> None:
    alarm, defect, usual = picture(50, spot=160), picture(51, spot=250), [picture(n) for n in range(60, 70)]
    with Detector.load(bundle, "patchcore") as detector:
        before = [detector(frame) for frame in (alarm, defect, *usual)]
        assert before[0].is_anomalous and before[1].is_anomalous
        edit = mark_good(bundle, "patchcore", alarm, note="a reflection", detector=detector)
        assert detector.refresh() == ("patchcore",)
        after = [detector(frame) for frame in (alarm, defect, *usual)]
    assert not after[0].is_anomalous and after[1].is_anomalous
    assert 1 <= edit.rows_added <= 5, "a few patches of sixteen were new"
    assert edit.score_before == pytest.approx(before[0].score, abs=1e-3)
    assert edit.score_after == pytest.approx(after[0].score, abs=1e-3)
    for old, new in zip(before, after, strict=True):
        assert new.score <= old.score + 1e-4, "a row more can only bring patches nearer"
        assert new.threshold == old.threshold
    assert (edit.number, edit.kind, edit.note, edit.image) == (1, "add", "a reflection", alarm.source)
    recipe = bundle.now().recipe("patchcore")
    assert (recipe.good_images, recipe.group_sizes, recipe.images[-1]) == (25, (25,), alarm.source)
    assert history(bundle.path, "patchcore") == (edit,)


def test_a_usual_image_teaches_nothing(bundle: Bundle) -> None:
    with Detector.load(bundle, "patchcore") as detector:
        usual = min((picture(n) for n in range(100, 110)), key=lambda frame: detector(frame).score)
        assert detector(usual).score < 0
        edit = mark_good(bundle, "patchcore", usual, detector=detector)
    assert edit.rows_added == 0
    assert (
        bundle.now().recipe("patchcore").arrays["bank"].tobytes() == bundle.recipe("patchcore").arrays["bank"].tobytes()
    )


def test_frames_of_a_camera_share_a_name_and_are_told_apart(bundle: Bundle) -> None:
    frames = [Frame(picture(n, spot=160 + 20 * n).pixels, "camera") for n in range(3)]
    names = [mark_good(bundle, "patchcore", frame).image for frame in frames]
    assert names == ["camera", "camera #2", "camera #3"]


def test_forgetting_an_added_image_restores_the_arrays(bundle: Bundle) -> None:
    for name in ("patchcore", "knn"):
        mark_good(bundle, name, picture(7, spot=200))
        edit = forget_image(bundle, name, "7-200.png")
        now, old = bundle.now().recipe(name), bundle.recipe(name)
        assert edit.rows_removed >= 1 and now.images[-1] == "" and now.good_images == 24
        rows = {name for name in old.arrays if name != "image_groups"}
        assert {n: now.arrays[n].tobytes() for n in rows} == {n: old.arrays[n].tobytes() for n in rows}
        assert now.threshold == old.threshold and now.group_sizes == old.group_sizes


def test_forgetting_a_fitted_image_takes_its_rows_and_its_calibration_score(bundle: Bundle) -> None:
    old = bundle.recipe("patchcore")
    highest = int(old.calibration_images[-1])
    edit = forget_image(bundle, "patchcore", old.images[highest], note="scratched after all")
    now = bundle.now().recipe("patchcore")
    assert highest in old.arrays["bank_origin"][:, 0]
    assert highest not in now.arrays["bank_origin"][:, 0]
    assert edit.rows_removed == old.arrays["bank"].shape[1] - now.arrays["bank"].shape[1] > 0
    assert now.calibration_scores.tolist() == old.calibration_scores[:-1].tolist()
    assert edit.threshold_after == now.threshold < old.threshold
    assert "23" in now.false_alarm_note and now.good_images == 23


def test_the_wrongly_good_defect_is_found_again_once_forgotten(real_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(real_bundle, tmp_path / "bundle")
    bundle, defect = Bundle.open(tmp_path / "bundle"), picture(90, spot=250)
    options = FitOptions(false_alarm=0.1, groups=1)
    bundle = bundle.add_recipe(fit_recipe(bundle, [*(picture(n) for n in range(24)), defect], "default", options))
    with Detector.load(bundle) as detector:
        again = picture(91, spot=250)
        assert not detector(again).is_anomalous, "it was learned as good"
        forget_image(bundle, None, defect.source)
        detector.refresh()
        assert detector(again).is_anomalous


# The cosine of whitened noise says nothing: what is new here is a colour.
BANKS: list[dict[str, Any]] = [{"neighbours": 3}, {"reweight": 9}, {"distance": "cosine", "projection": "none"}]


@pytest.mark.parametrize("chosen", BANKS)
def test_edits_go_by_the_rule_of_the_bank(bundle: Bundle, chosen: dict[str, Any]) -> None:
    options, alarm = FitOptions(false_alarm=0.1, groups=1, **chosen), picture(50, spot=160)
    alarm.pixels[8:16, 8:16, 0] = 220
    bundle = bundle.add_recipe(fit_recipe(bundle, [picture(n) for n in range(24)], "ruled", options))
    old = bundle.recipe("ruled")
    with Detector.load(bundle, "ruled") as detector:
        before = detector(alarm)
        assert before.is_anomalous
        edit = mark_good(bundle, "ruled", alarm, detector=detector)
        assert detector.refresh() == ("ruled",)
        after = detector(alarm)
    now = bundle.now().recipe("ruled")
    assert edit.rows_added >= 1
    assert (edit.score_before, edit.score_after) == pytest.approx((before.score, after.score), rel=1e-4, abs=1e-4)
    assert after.score < before.score and after.is_anomalous == ("averages over several neighbours" in edit.message)
    assert after.is_anomalous == (chosen == {"neighbours": 3}), "a row brings a patch near, but not its mean of three"
    assert ("no longer certain" in edit.message) == ("reweight" in chosen)
    if "distance" in chosen:
        np.testing.assert_allclose(np.linalg.norm(now.arrays["bank"][:3], axis=0), 1, rtol=1e-5)
    forget_image(bundle, "ruled", alarm.source)
    assert {n: a.tobytes() for n, a in bundle.now().recipe("ruled").arrays.items() if n != "image_groups"} == {
        n: a.tobytes() for n, a in old.arrays.items() if n != "image_groups"
    }
    undo(bundle, "ruled")
    assert same(bundle.now().recipe("ruled"), now)
    undo(bundle, "ruled")
    assert same(bundle.now().recipe("ruled"), old)


def test_a_bank_of_fewer_rows_than_neighbours_is_not_taught(bundle: Bundle) -> None:
    options = FitOptions(false_alarm=0.1, groups=1, neighbours=60)
    bundle = bundle.add_recipe(fit_recipe(bundle, [picture(n) for n in range(3)], "few", options))
    with pytest.raises(RecipeError, match="a bank of 48 rows, fewer than its 60 neighbours: fit again"):
        mark_good(bundle, "few", picture(50, spot=160))
    assert same(bundle.now().recipe("few"), bundle.recipe("few"))


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence_of_edits_can_be_undone_to_the_byte(bundle: Bundle, seed: int) -> None:
    rng, name = random.Random(seed), "patchcore"
    states = [bundle.recipe(name)]
    with Detector.load(bundle, name) as detector:
        for step in range(10):
            present = [image for image in states[-1].images if image]
            move = rng.choice(["add", "add", "forget", "undo"])
            if move == "add":
                mark_good(bundle, name, picture(200 + step, spot=rng.randrange(120, 255)), detector=detector)
                detector.refresh()
            elif move == "forget":
                forget_image(bundle, name, rng.choice(present))
            elif len(states) > 1:
                undo(bundle, name)
                states.pop()
                assert same(bundle.now().recipe(name), states[-1])
                continue
            else:
                continue
            states.append(bundle.now().recipe(name))
    while len(states) > 1:
        undo(bundle.path, name)
        states.pop()
        assert same(Bundle.open(bundle.path).recipe(name), states[-1])
    with pytest.raises(RecipeError, match="no edit to undo"):
        undo(bundle, name)
    log = history(bundle, name)
    assert [edit.number for edit in log] == list(range(1, len(log) + 1)), "nothing is lost from the log"
    files = {path.name for path in (bundle.path / "recipes").iterdir()}
    assert files == {Path(file).name for file in bundle.now().manifest.files if file.startswith("recipes/")}


def test_a_gaussian_says_that_it_cannot_be_edited(bundle: Bundle) -> None:
    for call in (
        lambda: mark_good(bundle, "mahalanobis", picture(1)),
        lambda: forget_image(bundle, "mahalanobis", "line/1-0.png"),
    ):
        with pytest.raises(RecipeError, match="fit again .only patchcore and knn can be edited"):
            call()
    assert bundle.now() == bundle


def test_knn_says_when_one_image_is_not_enough(bundle: Bundle) -> None:
    alarm = picture(50, spot=255)
    edits = [mark_good(bundle, "knn", alarm) for _ in range(5)]
    assert "still alarms" in edits[0].message and edits[0].score_after is not None
    assert edits[0].score_after > edits[0].threshold_after
    assert edits[-1].score_after is not None and edits[-1].score_after <= edits[-1].threshold_after
    assert "still alarms" not in edits[-1].message


def test_knn_of_a_handful_is_not_taught_because_its_scores_would_rise(bundle: Bundle) -> None:
    options = FitOptions(scorer="knn", false_alarm=0.1, groups=1)
    few = bundle.add_recipe(fit_recipe(bundle, [picture(n) for n in range(4)], "few", options))
    with pytest.raises(RecipeError, match="fewer than 5 good images"):
        mark_good(few, "few", picture(50, spot=160))
    assert history(few, "few") == ()


def test_unknown_and_ambiguous_images_are_told(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="no such image; near: line/3-0.png"):
        forget_image(bundle, "patchcore", "line/3-1.png")
    recipe = dataclasses.replace(bundle.recipe("patchcore"), images=("a/x.png", "b/x.png", ""))
    with pytest.raises(InputError, match="2 images .*give more of the path"):
        find_image(recipe, "x.png")
    assert find_image(recipe, "b/x.png") == 1
    with pytest.raises(InputError, match="no such image"):
        find_image(recipe, "")


def test_features_that_are_no_numbers_are_not_taught(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Features(np.full((1, 9), np.nan, np.float32), np.full((1, 16, 3), np.nan, np.float32))
    monkeypatch.setattr(Detector, "features", lambda self, frame: broken)
    with pytest.raises(CheckFailed, match="gave no number"):
        mark_good(bundle, "patchcore", picture(1))
    assert history(bundle, "patchcore") == ()


def test_a_kind_is_not_left_without_rows(bundle: Bundle) -> None:
    def one_row(now: Bundle, recipe: Recipe, file: str) -> Recipe:
        bank, origin = recipe.arrays["bank"][:, :1], recipe.arrays["bank_origin"][:1]
        return dataclasses.replace(recipe, arrays=recipe.arrays | {"bank": bank, "bank_origin": origin})

    changed = bundle.change_recipe("patchcore", one_row)
    image = changed.recipe("patchcore").images[int(changed.recipe("patchcore").arrays["bank_origin"][0, 0])]
    with pytest.raises(RecipeError, match="no rows left"):
        forget_image(changed, "patchcore", image)
    assert bundle.now() == changed


FORGET_SOME = """
import sys, time
from orinspect_edge_runtime.recipe_edit import forget_image
folder, pause, *numbers = sys.argv[1:]
for number in numbers:
    forget_image(folder, "patchcore", f"line/{number}-0.png")
    time.sleep(float(pause))
"""


def forget_elsewhere(folder: Path, numbers: Iterable[int], pause: float) -> subprocess.Popen[bytes]:
    """Another process that forgets these images, one after the other."""
    return subprocess.Popen([sys.executable, "-c", FORGET_SOME, str(folder), str(pause), *map(str, numbers)])


def test_two_processes_at_once_both_keep_their_edits(bundle: Bundle) -> None:
    parts = [forget_elsewhere(bundle.path, numbers, 0.01) for numbers in ([1, 2, 3], [4, 5, 6])]
    for part in parts:
        assert part.wait(120) == 0
    assert sorted(edit.image for edit in history(bundle.path, "patchcore")) == [f"line/{n}-0.png" for n in range(1, 7)]
    assert Bundle.open(bundle.path).recipe("patchcore").good_images == 18


def test_killed_at_any_moment_the_recipe_is_that_of_before_or_after(bundle: Bundle) -> None:
    rng = random.Random(0)
    for turn in range(3):
        before = len(history(bundle.path, "patchcore"))
        part = forget_elsewhere(bundle.path, range(6 * turn, 6 * turn + 6), 0.0)
        deadline = time.monotonic() + 60
        while len(bundle.now().recipe("patchcore").edits) == before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        part.kill()
        part.wait()
        recipe = Bundle.open(bundle.path).recipe("patchcore")
        assert len(recipe.edits) > before
        assert recipe.good_images == 24 - len(recipe.edits)
        assert sum(image == "" for image in recipe.images) == len(recipe.edits)
    undo(bundle.path, "patchcore")


def test_old_versions_beyond_the_budget_go(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orinspect_edge_runtime.bundle.UNDO_BYTES", 1)
    for number in range(4):
        forget_image(bundle, "patchcore", f"line/{number}-0.png")
    files = [name for name in bundle.now().manifest.files if name.startswith("recipes/patchcore-")]
    assert len(files) == 2, "the recipe and the version before it"
    undo(bundle, "patchcore")
    with pytest.raises(RecipeError, match="the version before it is not kept"):
        undo(bundle, "patchcore")


def test_fitting_anew_starts_a_new_history(bundle: Bundle, tiny_recipe: Callable[..., Recipe]) -> None:
    forget_image(bundle, "patchcore", "line/1-0.png")
    bundle.add_recipe(tiny_recipe("patchcore"))
    assert history(bundle, "patchcore") == ()
    assert len([name for name in bundle.now().manifest.files if name.startswith("recipes/patchcore-")]) == 1


def test_a_copy_is_a_recipe_of_its_own(bundle: Bundle) -> None:
    forget_image(bundle, "patchcore", "line/1-0.png")
    copy_recipe(bundle, "patchcore", "trial")
    forget_image(bundle, "trial", "line/2-0.png")
    assert [edit.image for edit in history(bundle, "trial")] == ["line/1-0.png", "line/2-0.png"]
    assert [edit.image for edit in history(bundle, "patchcore")] == ["line/1-0.png"]
    undo(bundle, "trial")
    with pytest.raises(RecipeError, match="not kept"):
        undo(bundle, "trial")
    bundle.remove_recipe("trial")
    undo(bundle, "patchcore")
    for name, problem in (("knn", "already"), ("../x", "recipe name")):
        with pytest.raises(InputError, match=problem):
            copy_recipe(bundle, "patchcore", name)
    assert not [name for name in Bundle.open(bundle.path).manifest.files if "trial" in name]
