from __future__ import annotations

import numpy as np
import pytest

from orinspect_train.alignment import Scores
from orinspect_train.recommendation import Candidate, Recommendation, recommend

KINDS = ("stain", "missing", "scratch")
IMAGES = 80


def scores(strength: float, noise: float = 0.0, seed: int = 0) -> Scores:
    """Defects that stand out by so many deviations of the good images; noise: what is this candidate's own."""
    rng, own = np.random.default_rng(0), np.random.default_rng([1, seed])
    draw = lambda: (rng.normal(size=IMAGES) + noise * own.normal(size=IMAGES)).astype(np.float32)  # noqa: E731
    return Scores(draw(), {kind: draw() + np.float32(strength) for kind in KINDS})


def candidates(start: float, pixels: float, **pretexts: float) -> list[Candidate]:
    found = [
        Candidate("lite0, ImageNet", {"epochs": 0}, scores(start)),
        Candidate("raw pixels", None, scores(pixels)),
    ]
    return found + [
        Candidate(name, {"method": name}, scores(value), name, 20, name == "synthetic_defects")
        for name, value in pretexts.items()
    ]


def text(found: Recommendation) -> str:
    return " ".join(found.words)


def test_a_pretext_that_surely_gains_is_recommended() -> None:
    found = recommend(candidates(1.0, 0.2, densecl=1.6, rotation=0.9), seed=0)
    assert found.chosen.choice == {"method": "densecl"}
    assert found.words[0].startswith("Train with densecl: it gains +0.1") and "over lite0, ImageNet" in found.words[0]
    assert found.gains["densecl"].least > 0 > found.gains["rotation"].most
    assert "flatters" not in text(found)


def test_a_gain_within_the_noise_is_called_that() -> None:
    rows = candidates(1.0, 0.2)
    rows.append(Candidate("densecl", {"method": "densecl"}, scores(1.1, noise=0.8), "densecl", 20))
    rows[0] = Candidate("lite0, ImageNet", {"epochs": 0}, scores(1.0, noise=0.8, seed=1))
    found = recommend(rows, seed=0)
    assert found.gains["densecl"].least < 0 < found.gains["densecl"].value
    assert found.chosen.name == "lite0, ImageNet"
    assert "as it is: no pretext did surely better" in text(found) and "within the noise" in text(found)


def test_training_that_loses_is_not_recommended() -> None:
    found = recommend(candidates(1.0, 0.2, densecl=0.5, rotation=0.7), seed=0)
    assert found.chosen.choice == {"epochs": 0}
    assert "no pretext did better. The best, rotation: -0.0" in text(found)


def test_a_small_gain_is_not_enough_however_sure_it_is() -> None:
    found = recommend(candidates(1.0, 0.2, densecl=1.02), seed=0)
    assert found.gains["densecl"].least > 0 and found.gains["densecl"].value < 0.01
    assert found.chosen.choice == {"epochs": 0}
    assert "which is too little for a run to keep it" in text(found)


def test_raw_pixels_that_win_are_named() -> None:
    found = recommend(candidates(0.5, 1.5, densecl=0.6), seed=0)
    assert found.chosen.choice is not None
    assert "Raw pixels win: +0." in text(found)


def test_raw_pixels_that_do_as_well_are_named() -> None:
    assert "Raw pixels do as well within the noise" in text(recommend(candidates(1.0, 1.0), seed=0))
    assert "Raw pixels" not in text(recommend(candidates(1.5, 0.5), seed=0))


def test_drawn_defects_flatter_a_method_that_draws_them() -> None:
    found = recommend(candidates(1.0, 0.2, synthetic_defects=1.6), seed=0)
    assert found.chosen.name == "synthetic_defects" and "the signal flatters it" in text(found)
    # Of two that gain alike the one that is not flattered is taken.
    assert recommend(candidates(1.0, 0.2, synthetic_defects=1.6, byol=1.6), seed=0).chosen.name == "byol"


def test_a_pretext_is_not_taken_for_being_as_good_as_one_that_gains() -> None:
    rows = candidates(1.0, 0.2, synthetic_defects=1.4)
    rows.append(Candidate("densecl", {"method": "densecl"}, scores(1.3, noise=1.0), "densecl", 20))
    found = recommend(rows, seed=0)
    assert found.gains["densecl"].least < 0
    assert found.chosen.name == "synthetic_defects"


def test_an_untrained_encoder_may_win() -> None:
    rows = candidates(0.5, 0.2)
    rows.insert(1, Candidate("lite0, untrained", {"init": "scratch", "epochs": 0}, scores(1.2)))
    found = recommend(rows, seed=0)
    assert found.chosen.name == "lite0, untrained"
    assert "Take lite0, untrained as it is: no pretext was measured" in text(found)


def test_a_failed_candidate_is_left_out_of_account() -> None:
    rows = [*candidates(1.0, 0.2), Candidate("vicreg", {"method": "vicreg"}, None, "vicreg", failed="collapsed")]
    found = recommend(rows, seed=0)
    assert set(found.means) == {"lite0, ImageNet", "raw pixels"}


def test_defects_that_everything_finds_tell_nothing() -> None:
    assert "cannot tell them apart" in text(recommend(candidates(5.0, 5.0), seed=0))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_intervals_hold_the_values_and_follow_from_the_seed(seed: int) -> None:
    rows = candidates(1.0, 0.2, densecl=1.6)
    found = recommend(rows, seed)
    assert all(one.least <= one.value <= one.most for one in (*found.means.values(), *found.gains.values()))
    assert found.means == recommend(rows, seed).means != recommend(rows, seed + 1).means
