from __future__ import annotations

import numpy as np
import pytest

from orinspect_train.other_things import OTHER_THINGS, doubled, shuffled, swirled


def picture(height: int = 64, width: int = 96) -> np.ndarray:
    """uint8 [height, width, 3] without two equal quarters."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("kind", OTHER_THINGS)
def test_another_thing_is_the_same_for_the_same_draw_and_never_the_image(kind: str) -> None:
    image, draw = picture(), OTHER_THINGS[kind]
    drawn = [draw(image, np.random.default_rng(seed)) for seed in range(40)]
    again = draw(image, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn[0], again)
    assert all(other.shape == image.shape and other.dtype == np.uint8 for other in drawn)
    assert min((other != image).mean() for other in drawn) > 0.3


def test_shuffled_quarters_are_those_of_the_image() -> None:
    image = picture()
    seen = {shuffled(image, np.random.default_rng(seed)).tobytes() for seed in range(400)}
    quarters = sorted(q.tobytes() for half in np.split(image, 2) for q in np.split(half, 2, axis=1))
    assert len(seen) == 23, "all orders of four but one"
    for content in seen:
        other = np.frombuffer(content, np.uint8).reshape(image.shape)
        assert sorted(q.tobytes() for half in np.split(other, 2) for q in np.split(half, 2, axis=1)) == quarters


def test_doubled_is_two_of_it_squeezed() -> None:
    image = np.repeat(np.repeat(picture(16, 16), 2, axis=0), 2, axis=1)
    shapes = set()
    for seed in range(8):
        other = doubled(image, np.random.default_rng(seed))
        beside = np.array_equal(other[:, :16], other[:, 16:])
        half = other[:, :16] if beside else other[:16]
        np.testing.assert_array_equal(half, image[:, ::2] if beside else image[::2])
        shapes.add(beside)
    assert shapes == {True, False}


def test_a_swirl_turns_the_middle_more_than_the_corners() -> None:
    rows, columns = np.mgrid[:64, :64]
    image = np.repeat((2 * rows + 2 * columns)[..., None], 3, axis=2).astype(np.uint8)
    other = swirled(image, np.random.default_rng(1)).astype(int)
    turned = np.abs(other - image)[..., 0] / np.hypot(rows - 31.5, columns - 31.5)
    assert turned[24:40, 24:40].mean() > 2 * turned[[0, 0, -1, -1], [0, -1, 0, -1]].mean()
