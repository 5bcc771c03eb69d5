"""Thresholds promise what they can, and say so when they cannot."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.threshold import (
    conformal_threshold,
    images_needed,
    observed_rate_interval,
    p_values,
    pareto_tail,
    rate_interval,
    tail_threshold,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=60), st.integers(1, 99))
def test_the_smallest_score_that_keeps_the_promise(scores: list[int], percent: int) -> None:
    rate = percent / 100
    found = conformal_threshold(np.array(scores, np.float64), rate)
    ordered, n = sorted(scores), len(scores)
    assert found.kept == (percent * (n + 1) >= 100)
    assert found.value == ordered[found.rank - 1]
    assert found.false_alarm_promised == pytest.approx((n + 1 - found.rank) / (n + 1))
    if found.kept:
        # In whole numbers, so that no rounding decides: this rank keeps the rate, the one below would not.
        assert 100 * (n + 1 - found.rank) <= percent * (n + 1)
        assert found.rank == 1 or 100 * (n + 2 - found.rank) > percent * (n + 1)
    else:
        assert found.rank == n


@pytest.mark.parametrize(("count", "rate"), [(40, 0.05), (19, 0.05), (99, 0.01), (10, 0.3)])
def test_the_promise_is_kept_on_average(count: int, rate: float) -> None:
    rng = np.random.default_rng(0)
    calibration, fresh = rng.standard_normal((1000, count)), rng.standard_normal((1000, 50))
    limits = np.array([conformal_threshold(row, rate).value for row in calibration])
    seen = (fresh > limits[:, None]).mean()
    promised = conformal_threshold(calibration[0], rate).false_alarm_promised
    assert promised <= rate
    assert seen == pytest.approx(promised, abs=0.15 * rate + 0.002)


def test_ties_alarm_less_never_more() -> None:
    rng = np.random.default_rng(1)
    draws = rng.integers(0, 4, (500, 20)).astype(float)
    limits = np.array([conformal_threshold(row, 0.2).value for row in draws])
    assert (rng.integers(0, 4, (500, 30)) > limits[:, None]).mean() <= 0.2


def test_fifty_images_cannot_promise_one_percent() -> None:
    found = conformal_threshold(np.arange(50.0), 0.01)
    assert (found.kept, found.value, found.rank) == (False, 49.0, 50)
    assert found.false_alarm_promised == pytest.approx(1 / 51)
    assert "50 good images cannot promise 1.00% false alarms: the best is 1.96%" in found.note
    assert "takes 99" in found.note
    assert conformal_threshold(np.arange(99.0), 0.01).kept
    assert not conformal_threshold(np.arange(98.0), 0.01).kept


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.05, 0.1, 0.003, 1 / 3])
def test_images_needed_are_enough_and_no_more(rate: float) -> None:
    needed = images_needed(rate)
    assert conformal_threshold(np.arange(float(needed)), rate).kept
    assert not conformal_threshold(np.arange(float(needed - 1)), rate).kept


def test_the_realised_rate_lies_in_its_interval_as_often_as_said() -> None:
    rng = np.random.default_rng(2)
    found = [conformal_threshold(row, 0.1) for row in rng.random((1000, 60))]
    low, high = found[0].interval
    realised = 1 - np.array([f.value for f in found])
    assert ((realised >= low) & (realised <= high)).mean() == pytest.approx(0.95, abs=0.025)
    assert realised.mean() == pytest.approx(found[0].false_alarm_promised, abs=0.006)


@pytest.mark.parametrize(
    ("alarms", "count", "low", "high"),
    [  # as scipy.stats.beta.ppf gives them
        (0, 10, 0.0, 0.30849710781876083),
        (1, 20, 0.0012650894979498935, 0.24873276277202777),
        (5, 10, 0.18708602844739855, 0.8129139715526015),
        (10, 10, 0.6915028921812392, 1.0),
    ],
)
def test_clopper_pearson_of_known_cases(alarms: int, count: int, low: float, high: float) -> None:
    assert observed_rate_interval(alarms, count) == pytest.approx((low, high), abs=1e-10)


def test_largest_of_n_has_a_closed_interval() -> None:
    # The rate above the largest of n is Beta(1, n): its quantiles are 1 - (1 - q)^(1/n).
    assert rate_interval(50, 50) == pytest.approx((1 - 0.975 ** (1 / 50), 1 - 0.025 ** (1 / 50)), abs=1e-12)


@pytest.mark.parametrize(("ties", "equal"), [("conservative", [1.0, 0.75, 0.25]), ("middle", [0.75, 0.375, 0.125])])
def test_p_values_of_ties(ties: str, equal: list[float]) -> None:
    found = p_values(np.array([1.0, 2.0, 2.0]), np.array([1.0, 2.0, 3.0]), ties=ties)
    assert found.tolist() == equal


def test_p_values_agree_with_the_threshold() -> None:
    rng = np.random.default_rng(3)
    known, fresh = rng.integers(0, 30, 80).astype(float), rng.integers(0, 40, 500).astype(float)
    for rate in (0.05, 0.1, 0.25):
        limit = conformal_threshold(known, rate)
        np.testing.assert_array_equal(fresh > limit.value, p_values(known, fresh) <= limit.false_alarm_promised)


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_conservative_p_values_of_good_images_are_never_too_small(rate: float) -> None:
    rng = np.random.default_rng(4)
    small = [p_values(rng.integers(0, 9, 30), rng.integers(0, 9, 4)) <= rate for _ in range(2000)]
    assert np.mean(small) <= rate


@pytest.mark.parametrize(("shape", "scale"), [(0.2, 2.0), (0.0, 1.0), (-0.3, 0.5)])
def test_the_tail_is_recovered(shape: float, scale: float) -> None:
    u = np.random.default_rng(5).random(200_000)
    excesses = -scale * np.log(u) if shape == 0 else scale / shape * (u**-shape - 1)
    assert pareto_tail(excesses) == pytest.approx((shape, scale), abs=0.02)


def test_the_tail_reaches_a_rate_that_the_images_cannot_promise() -> None:
    rng = np.random.default_rng(6)
    rates = [math.exp(-tail_threshold(rng.exponential(size=200), 0.001).value) for _ in range(300)]
    assert np.median(rates) == pytest.approx(0.001, rel=0.8)
    found = tail_threshold(rng.exponential(size=200), 0.001)
    assert (found.extrapolated, found.kept) == (True, False)
    assert "an estimate" in found.note
    assert found.value >= conformal_threshold(np.sort(rng.exponential(size=200)), 0.9).value


def test_the_tail_is_not_used_where_the_promise_holds() -> None:
    scores = np.random.default_rng(7).random(200)
    assert tail_threshold(scores, 0.05) == conformal_threshold(scores, 0.05)


@pytest.mark.parametrize("scores", [np.ones(200), np.concatenate([np.zeros(150), np.ones(50)])])
def test_a_tail_without_spread(scores: np.ndarray) -> None:
    with pytest.raises(InputError, match="all alike"):
        tail_threshold(scores, 0.001)


def test_too_few_scores_for_a_tail() -> None:
    with pytest.raises(InputError, match="49 good images leave 9 scores"):
        tail_threshold(np.arange(49.0), 0.001)


@pytest.mark.parametrize("scores", [[], [1.0, np.nan], [np.inf], [[1.0]]])
def test_unusable_scores(scores: list[float]) -> None:
    with pytest.raises(InputError):
        conformal_threshold(np.array(scores), 0.05)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, math.nan])
def test_impossible_rates(rate: float) -> None:
    with pytest.raises(InputError, match="false-alarm rate"):
        conformal_threshold(np.arange(9.0), rate)


def test_the_other_arguments_are_checked() -> None:
    with pytest.raises(InputError, match="ties"):
        p_values(np.ones(3), np.ones(3), ties="random")
    with pytest.raises(InputError, match="rank"):
        rate_interval(0, 5)
    with pytest.raises(InputError, match="alarms"):
        observed_rate_interval(6, 5)
