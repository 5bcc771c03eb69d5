"""A threshold by a few defects is the best on them, expects what new images then show, and says what it lacks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orinspect_edge_runtime.defect_threshold import (
    Stakes,
    _choose,
    _left_out_errors,
    defect_threshold,
    defects_needed,
)
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.metrics import f1_max
from orinspect_edge_runtime.threshold import observed_rate_interval

SCORES = st.lists(st.integers(-6, 6), min_size=2, max_size=12).map(lambda values: np.array(values, np.float64))
COSTS = Stakes(100, 1, 0.01)


def chosen(good: np.ndarray, bad: np.ndarray, stakes: Stakes) -> float:
    """The threshold alone, which is quick."""
    return _choose(np.sort(good), np.sort(bad), stakes, stakes.prevalence(len(good), len(bad))).value


def f1(good: np.ndarray, bad: np.ndarray, threshold: float) -> float:
    hits, alarms = (bad > threshold).sum(), (good > threshold).sum()
    return float(2 * hits / (hits + alarms + len(bad)))


def cost(good: np.ndarray, bad: np.ndarray, threshold: float, stakes: Stakes) -> float:
    rate, missed = stakes.defect_rate or 0, stakes.cost_missed or 0
    passed, wrong = (bad <= threshold).mean(), (good > threshold).mean()
    return float(rate * missed * passed + (1 - rate) * stakes.cost_false_alarm * wrong)


@settings(max_examples=60)
@given(SCORES, SCORES)
def test_no_threshold_has_a_better_f1(good: np.ndarray, bad: np.ndarray) -> None:
    labels = np.repeat([False, True], [len(good), len(bad)])
    assert f1(good, bad, chosen(good, bad, Stakes())) == pytest.approx(f1_max(labels, np.concatenate([good, bad])))


@settings(max_examples=60)
@given(SCORES, SCORES, st.floats(0.1, 100), st.floats(0.01, 0.9))
def test_no_threshold_costs_less(good: np.ndarray, bad: np.ndarray, missed: float, rate: float) -> None:
    stakes = Stakes(missed, 2.0, rate)
    others = [cost(good, bad, value, stakes) for value in np.arange(-7.5, 7)]
    assert cost(good, bad, chosen(good, bad, stakes), stakes) == pytest.approx(min(others))


def test_apart_it_lies_in_the_gap_where_the_stakes_put_it() -> None:
    good, bad = np.linspace(-2, 2, 20), np.linspace(6, 9, 20)
    middle = defect_threshold(good, bad, Stakes())
    assert middle.value == pytest.approx(4)
    dear = defect_threshold(good, bad, Stakes(99, 1, 0.1))
    # A miss costs 99 x 0.1 a part, a false alarm 0.9: eleven times less, so at one twelfth of the gap.
    assert dear.value == pytest.approx(2 + 4 / 12)
    cheap = defect_threshold(good, bad, Stakes(1, 11, 0.5))
    assert cheap.value == pytest.approx(6 - 4 / 12)
    assert "any threshold from 2.000 to 6.000 does as well on them, this one lies at 50% of the way" in middle.note
    # Fewer defects than good images: less is known of their side, so it keeps a little farther from it.
    assert 2 < defect_threshold(good, bad[:2], Stakes(1, 1, 0.5)).value < 4


def test_the_place_in_the_gap_costs_least_when_what_lies_beyond_thins_out() -> None:
    """The triangles of _share_of_gap, drawn: no other place in the gap costs less."""
    good, bad, stakes = np.linspace(-1, 0, 9), np.linspace(1, 2, 4), Stakes(5, 1, 0.2)
    found = chosen(good, bad, stakes)
    rng = np.random.default_rng(0)
    above, below = rng.triangular(0, 0, 1, 200_000), rng.triangular(0, 1, 1, 200_000)

    def expected(place: float) -> float:
        return 0.8 * (above > place).mean() / 10 + 0.2 * 5 * (below <= place).mean() / 5

    places = np.arange(0.02, 1, 0.02)
    best = places[np.argmin([expected(place) for place in places])]
    assert found == pytest.approx(best, abs=0.03)


@pytest.mark.parametrize("stakes", [Stakes(), COSTS])
def test_what_it_expects_is_what_new_images_show(stakes: Stakes) -> None:
    rng = np.random.default_rng(3)
    fresh_good, fresh_bad = rng.standard_normal(5_000), 2.5 + rng.standard_normal(5_000)
    expected, shown, resubstituted = [], [], []
    prevalence = stakes.prevalence(40, 12)
    for _ in range(100):
        good, bad = np.sort(rng.standard_normal(40)), np.sort(2.5 + rng.standard_normal(12))
        alarms, misses = _left_out_errors(good, bad, stakes, prevalence)
        value = chosen(good, bad, stakes)
        expected.append((alarms / 40, misses / 12))
        shown.append(((fresh_good > value).mean(), (fresh_bad <= value).mean()))
        resubstituted.append(((good > value).mean(), (bad <= value).mean()))
    loss = [np.mean([stakes.loss(*rates, prevalence) for rates in kind]) for kind in (expected, shown, resubstituted)]
    assert loss[0] == pytest.approx(loss[1], rel=0.15)
    assert loss[2] < 0.8 * loss[1], "the images it was chosen on look better than new ones"


def test_leaving_out_in_parts_is_leaving_out_one_by_one() -> None:
    rng = np.random.default_rng(1)
    good, bad = np.sort(rng.standard_normal(30)), np.sort(0.5 + rng.standard_normal(7))
    stakes = Stakes(defect_rate=0.5)
    alarms, misses = _left_out_errors(good, bad, stakes, 0.5)
    assert alarms == sum(good[k] > chosen(np.delete(good, k), bad, stakes) for k in range(30)) > 0
    assert misses == sum(bad[k] <= chosen(good, np.delete(bad, k), stakes) for k in range(7)) > 0


def test_the_interval_holds_most_thresholds_of_other_samples() -> None:
    rng = np.random.default_rng(5)
    found = defect_threshold(rng.standard_normal(60), 3 + rng.standard_normal(15), COSTS)
    others = [chosen(rng.standard_normal(60), 3 + rng.standard_normal(15), COSTS) for _ in range(200)]
    inside = np.mean([found.interval[0] <= value <= found.interval[1] for value in others])
    assert found.interval[0] <= found.value <= found.interval[1]
    assert 0.6 < inside < 1, "a bootstrap interval of few images, neither empty nor everything"


def test_few_defects_cannot_carry_a_miss_rate() -> None:
    found = defect_threshold(np.linspace(-2, 2, 50), np.array([5.0, 6, 7]), Stakes())
    assert (found.missed, found.missed_interval) == (0, observed_rate_interval(0, 3))
    assert "0.0% of the defects missed (95 % interval 0.00% to 70.76%)" in found.note
    assert "3 defects are few: that less than 5% are missed takes 72, all found" in found.note
    assert "no promise" in found.note
    many = defect_threshold(np.linspace(-2, 2, 50), np.linspace(5, 7, 100), Stakes())
    assert "are few" not in many.note


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.05, 0.01])
def test_defects_needed_are_enough_and_no_fewer(rate: float) -> None:
    needed = defects_needed(rate)
    assert observed_rate_interval(0, needed)[1] <= rate < observed_rate_interval(0, needed - 1)[1]


def test_scores_that_tell_nothing_apart_are_called_so() -> None:
    rng = np.random.default_rng(0)
    good, same = rng.standard_normal(50), rng.standard_normal(8)
    assert "this recipe does not see such defects" in defect_threshold(good, same, Stakes()).note
    assert "does not see" not in defect_threshold(good, same + 2, Stakes()).note
    everything = defect_threshold(good, same - 3, Stakes(1000, 1, 0.5))
    assert everything.value < min(good.min(), same.min() - 3) and "reject everything" in everything.note
    nothing = defect_threshold(good, same, Stakes(1, 1000, 0.5))
    assert nothing.value >= max(good.max(), same.max()) and "reject nothing" in nothing.note


def test_it_depends_on_nothing_but_the_scores_and_the_seed() -> None:
    rng = np.random.default_rng(0)
    good, bad = rng.standard_normal(30), 2 + rng.standard_normal(6)
    found = defect_threshold(good, bad, COSTS, seed=4)
    assert found == defect_threshold(rng.permutation(good), rng.permutation(bad), COSTS, seed=4)
    # What a unit of cost is called makes no difference.
    same = defect_threshold(good, bad, Stakes(500, 5, 0.01), seed=4)
    assert (same.value, same.interval, same.missed) == (found.value, found.interval, found.missed)
    assert same.loss == pytest.approx(5 * found.loss)


@pytest.mark.parametrize("high", [np.nextafter(np.float32(1), np.float32(2)), np.float32(1e30)])
def test_between_the_two_nearest_and_two_far_numbers(high: np.float32) -> None:
    top = float(high)  # Compared with a float32, Python's float would be rounded to one.
    for stakes in (Stakes(), Stakes(1e12, 1e-12, 0.5), Stakes(1e-12, 1e12, 0.5)):
        assert 1 <= chosen(np.array([0.0, 1]), np.array([top, top]), stakes) < top


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.0, 1, 0.1), "--cost-missed 0.0: a cost above 0"),
        ((1, -2.0, 0.1), "--cost-false-alarm -2.0: a cost above 0"),
        ((float("nan"), 1, 0.1), "--cost-missed nan"),
        ((float("inf"), 1, 0.1), "--cost-missed inf"),
        ((5.0, 1, None), "--cost-missed needs --defect-rate"),
        ((5.0, 1, 1.0), "--defect-rate 1.0: a share between 0 and 1"),
        ((None, 3.0, None), "--cost-false-alarm needs --cost-missed"),
    ],
)
def test_stakes_that_say_nothing_are_refused(values: tuple[float | None, float, float | None], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Stakes(*values)


def test_scores_that_no_threshold_can_be_found_on() -> None:
    for good, bad in itertools.product(([1.0], [np.nan, 1], [[1.0, 2]]), ([2.0, 3],)):
        with pytest.raises(InputError):
            defect_threshold(np.array(good), np.array(bad), Stakes())
    with pytest.raises(InputError, match="1 defect: .* give 2 or more"):
        defect_threshold(np.array([0.0, 1]), np.array([2.0]), Stakes())
