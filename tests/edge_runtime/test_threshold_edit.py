"""A recipe's threshold by defects: they are not fitted on, are scored again after edits, and every move can be undone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.defect_threshold import Stakes
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.fit import fit_recipe
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.preprocess import Frame
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.recipe_edit import forget_image, mark_good, undo
from orinspect_edge_runtime.recipe_threshold import expected, passing_defects
from orinspect_edge_runtime.threshold_edit import set_threshold

SIDE = 32
SCORERS = ("patchcore", "knn", "mahalanobis")


def picture(seed: int, *, spot: int = 0) -> Frame:
    pixels = np.random.default_rng(seed).integers(90, 110, (SIDE, SIDE, 3), dtype=np.uint8)
    if spot:
        pixels[8:16, 8:16] = spot
    return Frame(pixels, f"line/{seed}-{spot}.png")


GOOD = [picture(n) for n in range(24)]
DEFECTS = [picture(100 + n, spot=spot) for n, spot in enumerate((150, 170, 220, 250))]


@pytest.fixture(scope="module")
def fitted(real_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted") / "bundle"
    shutil.copytree(real_bundle, folder)
    for scorer in SCORERS:
        options = FitOptions(scorer=scorer, groups=1, review_alarm=0.4)
        recipe = fit_recipe(Bundle.open(folder), GOOD, scorer, options, defects=DEFECTS)
        Bundle.open(folder).add_recipe(recipe)
    return folder


@pytest.fixture
def bundle(fitted: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(fitted, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


def scores(bundle: Bundle, name: str, frames: list[Frame]) -> list[float]:
    with Detector.load(bundle, name) as detector:
        return [detector(frame).score for frame in frames]


@pytest.mark.parametrize("scorer", SCORERS)
def test_defects_move_the_threshold_and_nothing_else(bundle: Bundle, scorer: str) -> None:
    recipe = bundle.recipe(scorer)
    plain = fit_recipe(bundle, GOOD, scorer, FitOptions(scorer=scorer, groups=1, review_alarm=0.4))
    assert recipe.threshold != plain.threshold and recipe.review_threshold == plain.review_threshold
    assert (recipe.threshold_rule, plain.threshold_rule) == ("f1", "conformal")
    assert recipe.calibration_scores.tobytes() == plain.calibration_scores.tobytes()
    for name, array in plain.arrays.items():
        assert recipe.arrays[name].tobytes() == array.tobytes(), name
    assert set(recipe.arrays) - set(plain.arrays) <= {"defect_embedding", "defect_patches"}
    assert recipe.defects == tuple(frame.source for frame in DEFECTS)
    assert recipe.defect_scores == pytest.approx(scores(bundle, scorer, DEFECTS), rel=1e-3, abs=1e-3)
    assert recipe.threshold == expected(recipe).value and recipe.false_alarm_note == expected(recipe).note
    assert recipe.false_alarm_note.startswith("best F1 on 24 good images and 4 defects")
    above = (recipe.calibration_scores > recipe.threshold).sum()
    assert recipe.promised_false_alarm == (above + 1) / 25


def test_a_taught_image_that_hides_defects_is_told(bundle: Bundle) -> None:
    before = bundle.recipe("patchcore")
    assert passing_defects(before) == ()
    alike = picture(200, spot=151)
    edit = mark_good(bundle, "patchcore", alike)
    after = bundle.now().recipe("patchcore")
    told = "; 2 of its 4 defects alarm, no longer line/100-150.png, line/101-170.png: undo, or `recipe threshold` "
    assert edit.message.endswith(told + "to weigh anew")
    assert passing_defects(after) == ("line/100-150.png", "line/101-170.png")
    assert after.threshold == before.threshold
    assert after.defect_scores == pytest.approx(scores(bundle.now(), "patchcore", DEFECTS), rel=1e-3, abs=1e-3)
    undo(bundle, "patchcore")
    back = bundle.now().recipe("patchcore")
    assert back.defect_scores.tobytes() == before.defect_scores.tobytes() and passing_defects(back) == ()


def test_a_taught_image_unlike_the_defects_says_that_they_still_alarm(bundle: Bundle) -> None:
    for name in ("patchcore", "knn"):
        assert mark_good(bundle, name, picture(300, spot=40)).message.endswith("; 4 of its 4 defects alarm")


def test_kept_patches_never_promise_a_score_that_is_not_there(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much the bank changes, the defects' scores are at most those of the whole pictures."""
    monkeypatch.setattr("orinspect_edge_runtime.recipe_threshold.KEPT_PATCHES", 2)
    set_threshold(bundle, "patchcore", defects=DEFECTS)
    assert bundle.now().recipe("patchcore").arrays["defect_patches"].shape == (4, 2, 3)
    for number in range(3):
        mark_good(bundle, "patchcore", picture(400 + number, spot=160 + 30 * number))
        kept, whole = bundle.now().recipe("patchcore").defect_scores, scores(bundle.now(), "patchcore", DEFECTS)
        assert (kept <= np.array(whole) + 1e-3).all()


def test_forgetting_an_image_finds_the_threshold_again_by_the_defects(bundle: Bundle) -> None:
    before = bundle.recipe("patchcore")
    worst = before.images[before.calibration_images[-1]]
    edit = forget_image(bundle, "patchcore", worst)
    after = bundle.now().recipe("patchcore")
    assert len(after.calibration_scores) == 23 and "23 good images and 4 defects" in after.false_alarm_note
    assert after.threshold == expected(after).value == edit.threshold_after != before.threshold
    assert (after.defect_scores >= before.defect_scores - 1e-3).all(), "a row less brings no patch nearer"
    assert edit.message.endswith("; 4 of its 4 defects alarm")


@pytest.mark.parametrize("scorer", SCORERS)
def test_the_threshold_moves_without_fitting_and_back(bundle: Bundle, scorer: str) -> None:
    before = bundle.recipe(scorer)
    rate = set_threshold(bundle, scorer, false_alarm=0.1)
    plain = bundle.now().recipe(scorer)
    assert (
        plain.threshold
        == fit_recipe(bundle, GOOD, scorer, FitOptions(scorer=scorer, groups=1, false_alarm=0.1)).threshold
    )
    assert (plain.threshold_rule, plain.stakes, plain.false_alarm) == ("conformal", None, 0.1)
    assert plain.defects == before.defects, "they are kept, to be weighed again"
    costs = set_threshold(bundle, scorer, stakes=Stakes(1000, 1, 0.3), note="a customer")
    dear = bundle.now().recipe(scorer)
    assert (dear.threshold_rule, dear.stakes) == ("cost", Stakes(1000, 1, 0.3))
    assert dear.threshold < before.threshold, "misses are dear"
    assert dear.threshold == costs.threshold_after and costs.note == "a customer" and rate.kind == "threshold"
    undo(bundle, scorer)
    undo(bundle, scorer)
    assert bundle.now().recipe(scorer).threshold == before.threshold


def test_defects_that_turn_up_later(bundle: Bundle) -> None:
    for scorer in SCORERS:
        bundle = bundle.add_recipe(fit_recipe(bundle, GOOD, "late", FitOptions(scorer=scorer, groups=1)))
        edit = set_threshold(bundle, "late", defects=DEFECTS)
        late, early = bundle.now().recipe("late"), bundle.recipe(scorer)
        assert late.threshold == pytest.approx(early.threshold, rel=1e-3, abs=1e-3)
        assert late.stakes == Stakes() and late.defects == early.defects
        assert edit.message.startswith("threshold ") and "4 defects" in edit.message
        bundle = bundle.now()


def test_own_rule_after_edits(bundle: Bundle) -> None:
    mark_good(bundle, "patchcore", picture(200, spot=151))
    held = bundle.now().recipe("patchcore")
    set_threshold(bundle, "patchcore")
    moved = bundle.now().recipe("patchcore")
    assert moved.threshold == expected(held).value != held.threshold
    assert moved.stakes == held.stakes


def test_a_mask_hides_defects_outside(real_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(real_bundle, tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:, 16:] = True
    options = FitOptions(groups=1)
    recipe = fit_recipe(bundle, GOOD, "half", options, mask=mask, defects=DEFECTS)
    assert "this recipe does not see such defects" in recipe.false_alarm_note, "the spots lie in the other half"
    bundle = bundle.add_recipe(recipe)
    mark_good(bundle, "half", picture(7, spot=200))
    assert bundle.now().recipe("half").defect_scores == pytest.approx(recipe.defect_scores, rel=1e-3, abs=1e-3)


def without_defects(bundle: Bundle) -> Recipe:
    return fit_recipe(bundle, GOOD, "plain", FitOptions(groups=1, review_alarm=0.2))


def test_what_cannot_be_weighed_is_refused_and_changes_nothing(bundle: Bundle) -> None:
    bundle = bundle.add_recipe(without_defects(bundle))
    file = bundle.recipe_file("plain")
    with pytest.raises(InputError, match="give one of them"):
        set_threshold(bundle, "plain", false_alarm=0.1, defects=DEFECTS)
    with pytest.raises(InputError, match="holds no defects to weigh"):
        set_threshold(bundle, "plain", stakes=Stakes())
    with pytest.raises(InputError, match="1 defect"):
        set_threshold(bundle, "plain", defects=DEFECTS[:1])
    with pytest.raises(InputError, match="1 defect"):
        fit_recipe(bundle, GOOD, "plain", FitOptions(), defects=DEFECTS[:1])
    for rate in (0.2, 0.3, 0.0, 0.7):
        with pytest.raises(InputError, match="--false-alarm"):
            set_threshold(bundle, "plain", false_alarm=rate)
    assert bundle.now().recipe_file("plain") == file
