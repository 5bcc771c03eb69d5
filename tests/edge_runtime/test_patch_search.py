"""The search of large banks against the flat one in float64: the score is the same, whatever the bank looks like."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orinspect_edge_runtime import patch_search
from orinspect_edge_runtime.patch_search import Nearest, PatchSearch, flat_nearest

Floats = np.ndarray[Any, np.dtype[np.float32]]


def flat(rows: Floats, queries: Floats) -> Any:
    """Distances of all queries [P] to all rows [M], float64 [P, M], from plain differences."""
    differences = queries[:, None].astype(np.float64) - rows[None].astype(np.float64)
    return np.sqrt((differences**2).sum(axis=2))


def check(rows: Floats, queries: Floats, found: Nearest) -> None:
    """What Nearest promises."""
    distances = flat(rows, queries)
    true = distances.min(axis=1)
    size = np.abs(rows).max() + np.abs(queries).max()
    rounding = 1e-6 * size * rows.shape[1] ** 0.5
    assert abs(found.distances.max() - true.max()) <= 1e-5 * true.max() + rounding
    assert (np.abs(found.distances - true)[found.exact] <= 1e-5 * true[found.exact] + rounding).all()
    named = distances[np.arange(len(queries)), found.rows]
    assert (np.abs(found.distances - named) <= 1e-5 * named + rounding).all()
    assert found.exact.any()
    assert found.exact[found.distances.argmax()] or found.distances.max() <= true.max() + rounding


def blobs(rng: np.random.Generator, count: int, dim: int, centres: int = 8, rank: int = 6) -> Floats:
    """Vectors of a few kinds that vary in a few directions, as patch features do."""
    fixed = np.random.default_rng(5)
    axes, middle = fixed.standard_normal((rank, dim)), 4 * fixed.standard_normal((centres, dim))
    near = rng.standard_normal((count, rank)) @ axes + 0.1 * rng.standard_normal((count, dim))
    return (middle[rng.integers(centres, size=count)] + near).astype(np.float32)


BANKS = {
    "blobs": lambda rng: blobs(rng, 3000, 48),
    "isotropic": lambda rng: rng.standard_normal((3000, 24)).astype(np.float32),
    "all rows alike": lambda rng: np.ones((2500, 16), np.float32),
    "two points": lambda rng: np.repeat([[0.0] * 16, [1.0] * 16], 1200, axis=0).astype(np.float32),
    "far from the origin": lambda rng: blobs(rng, 3000, 48) + np.float32(1000),
    "tiny": lambda rng: blobs(rng, 3000, 48) * np.float32(1e-4),
    "one outlier": lambda rng: np.concatenate([blobs(rng, 2999, 48), np.full((1, 48), 300, np.float32)]),
    "a single row": lambda rng: rng.standard_normal((1, 12)).astype(np.float32),
    "one dimension": lambda rng: rng.standard_normal((2000, 1)).astype(np.float32),
}


@pytest.mark.parametrize("kind", BANKS)
def test_the_score_is_that_of_the_flat_search(kind: str) -> None:
    rng = np.random.default_rng(0)
    rows = BANKS[kind](rng)
    search = PatchSearch(rows)
    scale = rows.std() + 1e-3
    for spread in (0.0, 0.3, 3.0, 100.0):
        near = rows[rng.integers(len(rows), size=60)]
        queries = (near + spread * scale * rng.standard_normal(near.shape)).astype(np.float32)
        check(rows, queries, search(queries))


def test_defects_are_searched_in_cells_and_only_they_are_exact() -> None:
    rng = np.random.default_rng(1)
    rows, queries = blobs(rng, 4000, 48), blobs(rng, 196, 48)
    queries[70:73] += 5 * rng.standard_normal((3, 48)).astype(np.float32)
    found = PatchSearch(rows)(queries)
    check(rows, queries, found)
    assert found.exact[70:73].any()
    assert found.exact.sum() <= 16
    excess = found.distances / flat(rows, queries).min(axis=1) - 1
    assert excess.mean() < 0.1, "the map's bounds are near the truth"


@pytest.mark.parametrize("limit", ["FLAT_PATCHES", "FLAT_ROWS"])
def test_beyond_its_limits_the_search_is_flat_and_everything_exact(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    rows, queries = (rng.standard_normal((count, 64)).astype(np.float32) for count in (2500, 80))
    monkeypatch.setattr(patch_search, "PROBES", 1)
    found = PatchSearch(rows)(queries)
    check(rows, queries, found)
    assert not found.exact.all()
    monkeypatch.setattr(patch_search, limit, 0.0)
    found = PatchSearch(rows)(queries)
    assert found.exact.all()
    np.testing.assert_allclose(found.distances, flat(rows, queries).min(axis=1), rtol=1e-5)


def test_nothing_is_random_and_the_rows_are_not_copied() -> None:
    rng = np.random.default_rng(3)
    bank, queries = blobs(rng, 2500, 34), blobs(rng, 50, 32)
    rows = bank[:, :32]
    one, same = PatchSearch(rows), PatchSearch(rows)
    assert np.shares_memory(one._rows, bank)
    np.testing.assert_array_equal(one(queries).distances, same(queries).distances)
    np.testing.assert_array_equal(one(queries).rows, same(queries).rows)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 600),
    dim=st.integers(1, 40),
    patches=st.integers(1, 50),
    decay=st.floats(0, 2),
    offset=st.sampled_from([0.0, 10.0, 300.0]),
    spread=st.sampled_from([0.0, 0.01, 1.0, 30.0]),
)
def test_the_certificate_never_lies(
    seed: int, count: int, dim: int, patches: int, decay: float, offset: float, spread: float
) -> None:
    """Random banks of every shape: variances that fall fast or not at all, doubled rows, an origin far away."""
    rng = np.random.default_rng(seed)
    variances = (1 + np.arange(dim)) ** -decay
    rows = (rng.standard_normal((count, dim)) * variances + offset).astype(np.float32)
    rows[rng.integers(count, size=count // 3)] = rows[0]
    near = rows[rng.integers(count, size=patches)]
    queries = (near + spread * variances * rng.standard_normal((patches, dim))).astype(np.float32)
    check(rows, queries, PatchSearch(rows)(queries))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 90),
    wanted=st.integers(1, 12),
    block=st.sampled_from([1, 200, 1 << 20]),
    offset=st.sampled_from([0.0, 50.0]),
)
def test_the_nearest_rows_are_found_whatever_the_blocks(
    seed: int, rows: int, wanted: int, block: int, offset: float
) -> None:
    rng = np.random.default_rng(seed)
    bank = (rng.standard_normal((rows, 7)) + offset).astype(np.float32)
    bank[rng.integers(rows, size=rows // 3)] = bank[0]
    queries, count = (rng.standard_normal((5, 7)) + offset).astype(np.float32), min(wanted, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patch_search, "BLOCK_BYTES", block)
        squared, best = flat_nearest(queries, bank, count)
    distances = flat(bank, queries)
    np.testing.assert_allclose(np.sqrt(squared), np.sort(distances, axis=1)[:, :count], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(distances, best, axis=1), np.sqrt(squared), rtol=1e-4, atol=1e-5)
    assert all(len(set(row)) == count for row in best.tolist()), "no row is counted twice"
