"""More good images than are held at once: the bank covers all of them, no score rises, the threshold keeps its promise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orinspect_edge_runtime.bank_rule import in_space
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.dataset import evenly
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.errors import InputError, RecipeError
from orinspect_edge_runtime.features import Features, score_features
from orinspect_edge_runtime.fit import fit_recipe
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.memory_bank import MemoryBank
from orinspect_edge_runtime.preprocess import Frame
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_edge_runtime.whitening import Whitening

SIDE, HELD, LATER = 32, 12, 30


def picture(seed: int) -> Frame:
    """A part under a lamp of its own brightness, with grain: each teaches something."""
    rng = np.random.default_rng(seed)
    level = rng.integers(60, 180)
    return Frame(rng.integers(level - 9, level + 10, (SIDE, SIDE, 3)).astype(np.uint8), f"line/{seed}.png")


@pytest.fixture(scope="module")
def fits(real_bundle: Path) -> tuple[Bundle, Recipe, Recipe]:
    """The bundle, a recipe of some images, and one with more of them in its bank."""
    bundle, options = Bundle.open(real_bundle), FitOptions(groups=1, false_alarm=0.2, review_alarm=0.4)
    held = [picture(n) for n in range(HELD)]
    later = (picture(100 + n) for n in range(LATER))
    return bundle, fit_recipe(bundle, held, "part", options), fit_recipe(bundle, held, "part", options, more=later)


@pytest.fixture
def grown(fits: tuple[Bundle, Recipe, Recipe], tmp_path: Path) -> Bundle:
    shutil.copytree(fits[0].path, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle").add_recipe(fits[2])


def test_every_patch_of_every_image_is_within_the_radius_told(grown: Bundle) -> None:
    recipe = grown.recipe("part")
    bank = MemoryBank.of(recipe.arrays)
    whitening = Whitening(recipe.arrays["patch_mean"], recipe.arrays["patch_projection"])
    with Detector.load(grown) as detector:
        frames = [picture(n) for n in (*range(HELD), *range(100, 100 + LATER))]
        patches = [whitening(detector.features(frame).patches[0]) for frame in frames]
        scores = [detector(frame).score for frame in frames[HELD:]]
    farthest = max(float(bank.rule.nearest(one, bank.rows).max()) for one in patches)
    assert farthest <= recipe.arrays["bank_radius"][0] * (1 + 1e-4)
    assert max(scores) <= 1e-3, "each of the later ones scores as a usual good image at most"


def test_only_the_bank_is_other_and_no_score_rises(fits: tuple[Bundle, Recipe, Recipe], grown: Bundle) -> None:
    _, held, more = fits
    assert (more.good_images, more.group_sizes, len(more.images)) == (HELD + LATER, (HELD + LATER,), HELD + LATER)
    assert (more.threshold, more.review_threshold) == (held.threshold, held.review_threshold)
    assert more.calibration_scores.tobytes() == held.calibration_scores.tobytes()
    assert len(more.arrays["image_groups"]) == HELD + LATER
    for name in held.arrays.keys() - {"bank", "bank_origin", "bank_radius", "image_groups"}:
        assert more.arrays[name].tobytes() == held.arrays[name].tobytes(), name
    rows = [recipe.arrays["bank"].shape[1] for recipe in (held, more)]
    assert rows[0] < rows[1] < rows[0] + 16 * LATER, "some rows of some images"
    assert more.arrays["bank_origin"][:, 0].max() >= HELD, "rows say which of the later images they come from"
    shutil.copytree(grown.path, grown.path.parent / "before")
    before = Bundle.open(grown.path.parent / "before").add_recipe(held)
    fresh = [picture(500 + n) for n in range(20)]
    with Detector.load(before) as old, Detector.load(grown) as new:
        falls = [old(frame).score - new(frame).score for frame in fresh]
    assert min(falls) >= -1e-3 and max(falls) > 0.1


def test_one_image_is_asked_for_after_the_other(real_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bank that had to wait for all images would have to hold them."""
    asked, at_each_row = 0, list[int]()

    def later() -> Iterator[Frame]:
        nonlocal asked
        for number in range(LATER):
            asked += 1
            yield picture(100 + number)

    grow = MemoryBank.grown

    def seen(self: MemoryBank, *arguments: Any) -> MemoryBank:
        at_each_row.append(asked)
        return grow(self, *arguments)

    monkeypatch.setattr(MemoryBank, "grown", seen)
    held = [picture(n) for n in range(HELD)]
    fit_recipe(Bundle.open(real_bundle), held, "part", FitOptions(groups=1), more=later())
    ahead = [count - number for number, count in enumerate(at_each_row, 1)]
    assert len(ahead) == LATER and max(ahead) <= 8


def test_a_scorer_without_a_bank_is_refused(fits: tuple[Bundle, Recipe, Recipe]) -> None:
    held = [picture(n) for n in range(HELD)]
    with pytest.raises(RecipeError, match="only patchcore and knn can be edited"):
        fit_recipe(fits[0], held, "part", FitOptions("mahalanobis", groups=1), more=[picture(100)])


@pytest.mark.parametrize("chosen", [{"neighbours": 3}, {"distance": "cosine"}])
def test_no_score_rises_by_these_rules_either(grown: Bundle, chosen: dict[str, Any]) -> None:
    options, rng = FitOptions(groups=1, false_alarm=0.2, **chosen), np.random.default_rng(0)
    held, later = [picture(n) for n in range(HELD)], [picture(100 + n) for n in range(LATER)]
    less, more = (fit_recipe(grown, held, "part", options, more=extra) for extra in ([], later))
    assert less.arrays["bank"].shape[1] < more.arrays["bank"].shape[1]
    features = Features(np.zeros((50, 9), np.float32), rng.random((50, 16, 3)).astype(np.float32))
    old, new = (score_features(SCORERS["patchcore"], recipe.arrays, features)[0] for recipe in (less, more))
    assert (new <= old + 1e-4).all() and (new < old - 0.1).any()
    with Detector.load(grown) as detector:
        patches = np.concatenate([detector.features(frame).patches[0] for frame in later])
    bank = MemoryBank.of(more.arrays)
    nearest = bank.rule.nearest(in_space(more.arrays, patches), bank.rows)[:, 0]
    assert 0 < nearest.max() <= more.arrays["bank_radius"][0] * (1 + 1e-4)


def test_reweighting_is_refused_because_it_could_promise_nothing(fits: tuple[Bundle, Recipe, Recipe]) -> None:
    held = [picture(n) for n in range(HELD)]
    with pytest.raises(InputError, match="--reweight: a row more can raise a score, so --in-memory could promise"):
        fit_recipe(fits[0], held, "part", FitOptions(groups=1, reweight=9), more=[picture(100)])


def test_knn_takes_each_of_them(fits: tuple[Bundle, Recipe, Recipe]) -> None:
    held, later = [picture(n) for n in range(HELD)], [picture(100 + n) for n in range(5)]
    recipe = fit_recipe(fits[0], held, "part", FitOptions("knn", groups=1), more=later)
    assert len(recipe.arrays["references"]) == recipe.good_images == HELD + 5


@pytest.mark.parametrize(("count", "of"), [(2, 3), (3, 10), (9, 10), (10, 10), (12, 10), (2, 100)])
def test_they_are_drawn_evenly(count: int, of: int) -> None:
    paths = [Path(str(n)) for n in range(of)]
    drawn, others = evenly(paths, count)
    assert len(drawn) == min(count, of) and sorted(drawn + others, key=lambda p: int(p.name)) == paths
    places = np.array([int(path.name) for path in drawn])
    assert count >= of or (places[0], places[-1], np.ptp(np.diff(places)) <= 1) == (0, of - 1, True)


def test_the_command_says_what_it_did(
    real_bundle: Path, tmp_path: Path, pictures: Path, orinspect: Callable[..., Any]
) -> None:
    shutil.copytree(real_bundle, tmp_path / "bundle")
    ran = orinspect("fit", tmp_path / "bundle", pictures / "train", "--in-memory", "10", "--false-alarm", "0.1")
    assert ran.code == 0, ran.err
    assert "24 good images (24)" in ran.out and "good images like the 10 calibrated on" in ran.out
    assert "fitted on 10 images; what it lacked of 14 others was added" in ran.out
    shown = json.loads(orinspect("recipe", "history", tmp_path / "bundle", "--images", "--json").out)
    assert len(shown) == 24 and Path(shown[0]).name == "00.png" and Path(shown[9]).name == "23.png"
    for options, message in (
        (("--in-memory", "10", "--scorer", "mahalanobis"), "has to see all images at once; use patchcore or knn"),
        (("--tile-overlap", "0.5"), "give both, or none"),
        (("--in-memory", "10", "--reweight", "9"), "a row more can raise a score"),
    ):
        refused = orinspect("fit", tmp_path / "bundle", pictures / "train", *options)
        assert refused.code == 2 and message in refused.err
