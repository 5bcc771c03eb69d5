"""Connected regions, against a flood fill."""

from __future__ import annotations

import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from orinspect_edge_runtime.regions import connected_regions


def flood_fill(masks: np.ndarray) -> tuple[list[int], int]:
    """Region number of every True pixel, in row-major order, one pixel after the other."""
    numbers, count = np.full(masks.shape, -1), 0
    for start in zip(*np.nonzero(masks), strict=True):
        if numbers[start] >= 0:
            continue
        stack = [start]
        while stack:
            n, y, x = stack.pop()
            inside = 0 <= y < masks.shape[1] and 0 <= x < masks.shape[2]
            if inside and masks[n, y, x] and numbers[n, y, x] < 0:
                numbers[n, y, x] = count
                stack += [(n, y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        count += 1
    return numbers[masks].tolist(), count


@settings(max_examples=200, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))))
def test_same_as_a_flood_fill(masks: np.ndarray) -> None:
    regions, count = connected_regions(masks)
    assert (regions.tolist(), count) == flood_fill(masks)


def test_images_and_opposite_edges_do_not_touch() -> None:
    masks = np.zeros((2, 3, 4), bool)
    masks[0, 2] = masks[1, 0] = True
    masks[0, 0, 3] = masks[0, 1, 0] = True
    assert connected_regions(masks)[1] == 3


def test_spirals_and_noise_in_bulk() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((100, 256, 256)) < 0.02
    masks[:, ::2, :] |= rng.random((100, 128, 1)) < 0.05
    start = time.perf_counter()
    regions, count = connected_regions(masks)
    assert time.perf_counter() - start < 10
    assert len(regions) == masks.sum()
    assert np.unique(regions).tolist() == list(range(count))


def test_one_winding_region() -> None:
    masks = np.zeros((1, 101, 50), bool)
    masks[0, ::2] = True
    masks[0, 1::4, -1] = masks[0, 3::4, 0] = True
    assert connected_regions(masks)[1] == 1
