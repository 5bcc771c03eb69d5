"""The batched selection picks what the plain algorithm picks."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orinspect_edge_runtime import coreset
from orinspect_edge_runtime.coreset import greedy_k_centre
from orinspect_edge_runtime.errors import InputError


def plain(points: np.ndarray, count: int, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Gonzalez's algorithm word for word, in float64; the lowest row wins ties, no row is picked twice."""
    points = points.astype(np.float64)
    nearest, picks, radii = np.full(len(points), np.inf), [first], []
    while True:
        nearest = np.minimum(nearest, ((points - points[picks[-1]]) ** 2).sum(axis=1))
        nearest[picks] = -1
        radii.append(np.sqrt(max(nearest.max(), 0)))
        if len(picks) == count:
            return np.array(picks), np.array(radii)
        picks.append(int(nearest.argmax()))


@pytest.mark.parametrize(("rows", "dim", "count"), [(3000, 24, 700), (900, 3, 900), (257, 8, 40), (50, 5, 50)])
def test_same_picks_and_radii_as_the_plain_algorithm(rows: int, dim: int, count: int) -> None:
    points = np.random.default_rng(rows).standard_normal((rows, dim)).astype(np.float32)
    found = greedy_k_centre(points, count, first=7)
    picks, radii = plain(points, count, 7)
    assert found.indices.tolist() == picks.tolist()
    np.testing.assert_allclose(found.radii, radii, atol=2e-3)
    assert found.radius == found.radii[-1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 4), st.integers(4, 16))
def test_ties_and_duplicates_fall_as_in_the_plain_algorithm(seed: int, rows: int, dim: int, pool: int) -> None:
    # Small whole numbers: distances are exact in float32, and most of them occur many times.
    points = np.random.default_rng(seed).integers(-2, 3, (rows, dim)).astype(np.float32)
    original = coreset.POOL
    coreset.POOL = pool
    try:
        found = greedy_k_centre(points, rows, first=rows // 2)
    finally:
        coreset.POOL = original
    picks, radii = plain(points, rows, rows // 2)
    assert found.indices.tolist() == picks.tolist()
    np.testing.assert_allclose(found.radii, radii, atol=1e-6)


def test_a_prefix_is_the_smaller_selection() -> None:
    points = np.random.default_rng(1).standard_normal((1200, 10)).astype(np.float32)
    large, small = greedy_k_centre(points, 400, seed=3), greedy_k_centre(points, 90, seed=3)
    assert large.indices[:90].tolist() == small.indices.tolist()
    np.testing.assert_array_equal(large.radii[:90], small.radii)
    away = np.linalg.norm(points[:, None] - points[small.indices][None], axis=2).min(axis=1)
    assert away.max() == pytest.approx(small.radius, abs=1e-3)


def test_the_seed_alone_decides() -> None:
    points = np.random.default_rng(2).standard_normal((300, 6)).astype(np.float32)
    one, same, other = (greedy_k_centre(points, 30, seed=seed) for seed in (5, 5, 6))
    assert one.indices.tolist() == same.indices.tolist()
    assert one.indices[0] != other.indices[0]


def test_blocks_do_not_change_the_picks(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(3).standard_normal((700, 12)).astype(np.float32)
    whole = greedy_k_centre(points, 150, first=0)
    monkeypatch.setattr(coreset, "BLOCK_BYTES", 4096)
    assert greedy_k_centre(points, 150, first=0).indices.tolist() == whole.indices.tolist()


def test_memory_is_as_stated() -> None:
    points = np.random.default_rng(5).standard_normal((20_000, 32)).astype(np.float32)
    tracemalloc.start()
    greedy_k_centre(points, 300, first=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 20_000 + 2 * coreset.BLOCK_BYTES + 4 * coreset.POOL * (4 * coreset.POOL + 2 * 32)


def test_progress_rises_to_one() -> None:
    shares: list[float] = []
    greedy_k_centre(np.random.default_rng(4).random((800, 4)), 200, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(shares) < 150, "the rounds are not batched"


@pytest.mark.parametrize(("count", "first"), [(0, None), (11, None), (3, 10), (3, -1)])
def test_impossible_requests(count: int, first: int | None) -> None:
    with pytest.raises(InputError, match="pick"):
        greedy_k_centre(np.zeros((10, 2)), count, first=first)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(value: float) -> None:
    points = np.zeros((10, 2))
    points[4, 1] = value
    with pytest.raises(InputError, match="not finite"):
        greedy_k_centre(points, 3)
