from __future__ import annotations

import numpy as np
import pytest

from orinspect_train.augment import Augmenter
from orinspect_train.methods.jigsaw import Options, far_orders, render, tile_side


@pytest.mark.parametrize(("count", "number"), [(4, 24), (9, 64)])
def test_orders_are_distinct_permutations_and_the_same_every_time(count: int, number: int) -> None:
    orders = far_orders(count, number)
    assert len(set(orders)) == number
    assert all(sorted(order) == list(range(count)) for order in orders)
    far_orders.cache_clear()
    assert far_orders(count, number) == orders


def test_the_first_orders_share_no_place() -> None:
    first = np.array(far_orders(9, 64)[:4])
    assert all((a != b).sum() >= 8 for i, a in enumerate(first) for b in first[:i])


def test_tiles_come_in_the_order_that_is_asked_for() -> None:
    # Every cell has a gray level of its own.
    levels = np.arange(9, dtype=np.uint8).reshape(3, 3) * 25 + 20
    image = np.repeat(levels.repeat(30, 0).repeat(30, 1)[..., None], 3, 2)
    batch = render(np.stack([image] * 6), np.random.default_rng(0), Augmenter(gray=True), Options())
    side = tile_side(90, 3)
    assert batch["tiles"].shape == (6, 9, side, side, 3)
    for tiles, order in zip(batch["tiles"], batch["order"], strict=True):
        layout = far_orders(9, 64)[int(order)]
        # Each tile has its own brightness and contrast, but a step of three cells is more than they change.
        darkest, brightest = layout.index(0), layout.index(8)
        means = tiles.mean((1, 2, 3))
        assert means[brightest] - means[darkest] > 90
