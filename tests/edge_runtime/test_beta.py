"""The incomplete beta function, against identities that need no other library."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orinspect_edge_runtime.beta import beta_cdf, beta_quantile


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.floats(0, 1))
def test_it_is_a_binomial_tail(a: int, b: int, x: float) -> None:
    n = a + b - 1
    tail = math.fsum(math.comb(n, j) * x**j * (1 - x) ** (n - j) for j in range(a, n + 1))
    assert beta_cdf(x, a, b) == pytest.approx(tail, abs=1e-12)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (1, 1), (3, 7), (1, 5000), (5000, 1), (50_000, 3)])
@pytest.mark.parametrize("share", [0.0, 1e-6, 0.025, 0.5, 0.975, 1.0])
def test_the_quantile_inverts_it(a: float, b: float, share: float) -> None:
    x = beta_quantile(share, a, b)
    assert 0 <= x <= 1
    assert beta_cdf(x, a, b) == pytest.approx(share, abs=1e-9)


def test_arcsine_distribution() -> None:
    for x in (0.01, 0.3, 0.99):
        assert beta_cdf(x, 0.5, 0.5) == pytest.approx(2 / math.pi * math.asin(math.sqrt(x)), abs=1e-13)


@pytest.mark.parametrize("arguments", [(0.5, 0, 1), (0.5, 1, -1), (1.5, 1, 1), (math.nan, 1, 1)])
def test_outside_its_domain(arguments: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="not defined"):
        beta_cdf(*arguments)


def test_a_quantile_needs_a_share() -> None:
    with pytest.raises(ValueError, match="not defined"):
        beta_quantile(1.1, 2, 2)
