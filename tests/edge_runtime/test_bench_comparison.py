"""Is a comparison of two runs honest: does it cry wolf, and does it see a wolf?"""

from __future__ import annotations

import numpy as np
import pytest

from orinspect_edge_runtime.bench.comparison import Comparison, compare_times, student_95

Times = list[list[float]]


def simulated(rng: np.random.Generator, *, runs: int, correlation: float, slower: float = 1.0) -> Times:
    """Times like those of a real machine: calls that resemble the ones before, and now and then a late one."""
    noise, x = rng.normal(size=runs), np.zeros(runs)
    x[0] = noise[0]
    for at in range(1, runs):
        x[at] = correlation * x[at - 1] + np.sqrt(1 - correlation**2) * noise[at]
    late = np.where(rng.random(runs) < 0.05, 1 + rng.exponential(0.5, runs), 1)
    rounds: Times = (5 * slower * np.exp(0.03 * x) * late).reshape(-1, 10).tolist()
    return rounds


@pytest.mark.parametrize(("runs", "correlation"), [(100, 0.0), (100, 0.7), (200, 0.5), (200, 0.9), (1000, 0.9)])
def test_equal_runs_are_seldom_called_different(runs: int, correlation: float) -> None:
    """Of 150 A/A pairs at most 7 % may be called different; a seed that is fixed makes this one answer for ever."""
    rng = np.random.default_rng(7)
    pairs = [[simulated(rng, runs=runs, correlation=correlation) for _ in range(2)] for _ in range(150)]
    wrong = sum(compare_times("fp32", *pair).verdict != "no difference shown" for pair in pairs)
    assert wrong / len(pairs) <= 0.07


@pytest.mark.parametrize(("runs", "correlation"), [(100, 0.0), (100, 0.5), (200, 0.5), (1000, 0.9)])
def test_five_percent_are_seen(runs: int, correlation: float) -> None:
    rng = np.random.default_rng(8)
    seen = 0
    for _ in range(60):
        here = simulated(rng, runs=runs, correlation=correlation, slower=1.05)
        found = compare_times("fp32", here, simulated(rng, runs=runs, correlation=correlation))
        assert found.ratio == pytest.approx(1.05, abs=0.04)
        seen += found.verdict == "slower"
    assert seen / 60 >= 0.9


def test_calls_that_resemble_each_other_widen_the_interval() -> None:
    def width(correlation: float) -> float:
        rng = np.random.default_rng(1)
        pair = [simulated(rng, runs=200, correlation=correlation) for _ in range(2)]
        found = compare_times("fp32", *pair)
        return found.high - found.low

    assert width(0.9) > 2 * width(0.0)


def test_the_interval_is_the_inverse_the_other_way_round() -> None:
    rng = np.random.default_rng(2)
    a, b = (simulated(rng, runs=100, correlation=0.3, slower=slower) for slower in (1.2, 1.0))
    forth, back = compare_times("fp32", a, b), compare_times("fp32", b, a)
    assert (forth.verdict, back.verdict) == ("slower", "faster")
    assert forth.ratio * back.ratio == pytest.approx(1)


def test_equal_constant_times_show_no_difference() -> None:
    same = [[2.0] * 10] * 6
    assert compare_times("fp32", same, same).verdict == "no difference shown"
    # Whole microseconds: a call may be stored as 0.
    assert compare_times("fp32", [[0.0] * 10] * 6, [[0.0] * 10] * 6).ratio == 1


@pytest.mark.parametrize(("freedom", "expected"), [(4, 2.776), (9, 2.262), (18, 2.101), (38, 2.024), (1e6, 1.960)])
def test_quantiles_of_student(freedom: float, expected: float) -> None:
    assert student_95(freedom) == pytest.approx(expected, abs=2e-3)


def test_a_regression_exceeds_by_all_of_its_interval() -> None:
    assert Comparison("fp32", 1.10, 1.06, 1.14).exceeds(5)
    assert not Comparison("fp32", 1.10, 1.04, 1.16).exceeds(5)
    assert Comparison("fp32", 1.10, 1.04, 1.16).exceeds(0)
