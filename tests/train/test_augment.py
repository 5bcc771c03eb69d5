from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from orinspect_train.augment import NOISE_LEVELS, flip, flips, jitter, normalise, view

Textured = Callable[..., np.ndarray]


def test_jitter_changes_brightness_and_contrast_within_bounds() -> None:
    flat = np.full((200, 16, 16, 3), 128, np.uint8)
    means = jitter(flat, np.random.default_rng(0), gray=True).mean(axis=(1, 2, 3))
    assert np.abs(means - 128).max() < 0.15 * 255 + NOISE_LEVELS
    assert means.std() > 10


def test_gray_images_stay_gray_and_colour_is_kept(textured: Textured) -> None:
    gray = textured(4)
    out = jitter(gray, np.random.default_rng(0), gray=True)
    assert (out == out[..., :1]).all() and (out != gray).any()
    coloured = np.broadcast_to(np.array([30, 120, 220], np.uint8), (4, 16, 16, 3))
    order = jitter(coloured, np.random.default_rng(0), gray=False).mean(axis=(0, 1, 2))
    assert order[0] < order[1] < order[2]


def test_a_view_is_part_of_the_image(textured: Textured) -> None:
    images = textured(6)
    one, again, other = (view(images, np.random.default_rng(seed), gray=True) for seed in (1, 1, 2))
    assert one.shape == images.shape and one.dtype == np.uint8
    assert (one == again).all() and (one != other).any()
    means = one.mean(axis=(1, 2, 3)) - images.mean(axis=(1, 2, 3))
    assert np.abs(means).max() < 60


@pytest.mark.parametrize("choice", [(False, False), (True, False), (False, True), (True, True)])
def test_flip(choice: tuple[bool, bool]) -> None:
    image = np.arange(12).reshape(2, 3, 2)
    expected = image
    if choice[0]:
        expected = np.flipud(expected)
    if choice[1]:
        expected = np.fliplr(expected)
    assert (flip(image, np.array(choice)) == expected).all()
    assert flips(7, np.random.default_rng(0)).shape == (7, 2)


def test_normalise_is_that_of_the_graph() -> None:
    pixels = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    found = normalise(pixels, mean, std)
    assert found.shape == (2, 3, 4, 5) and found.dtype == torch.float32
    for channel in range(3):
        expected = (pixels[..., channel] / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(found[:, channel], expected)
