from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orinspect_train.defects import DEFECTS, LEAST_CHANGE, MASK_OPACITY, draw_defect, patch_labels

BLANKS = {"black": 0, "gray": 128, "white": 255}


def picture(kind: str, height: int, width: int, seed: int) -> np.ndarray:
    if kind in BLANKS:
        return np.full((height, width, 3), BLANKS[kind], np.uint8)
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=60)
@given(st.sampled_from(["noise", *BLANKS]), st.sampled_from([(64, 64), (32, 96)]), st.integers(0, 2**32), st.booleans())
def test_a_defect_is_drawn_where_its_mask_says(kind: str, size: tuple[int, int], seed: int, alike: bool) -> None:
    image = picture(kind, *size, seed)
    other = image if alike else picture("noise", *size, seed + 1)
    before = image.copy()
    drawn, mask = draw_defect(image, other, np.random.default_rng(seed))
    assert (image == before).all(), "the image itself was changed"
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    assert mask.any()
    assert (drawn[~mask] == image[~mask]).all()
    assert np.abs(drawn[mask].astype(int) - image[mask]).mean() >= LEAST_CHANGE


@given(st.integers(0, 2**32))
def test_drawing_is_a_function_of_the_seed(seed: int) -> None:
    image, other = picture("noise", 64, 64, 0), picture("noise", 64, 64, 1)
    one, again = (draw_defect(image, other, np.random.default_rng(seed)) for _ in range(2))
    assert (one[0] == again[0]).all() and (one[1] == again[1]).all()


@pytest.mark.parametrize("kind", DEFECTS)
def test_every_kind_covers_some_of_the_image_and_not_most(kind: str) -> None:
    image, other = picture("gray", 128, 128, 0), picture("noise", 128, 128, 1)
    layers = [DEFECTS[kind](image, other, np.random.default_rng(seed)) for seed in range(40)]
    areas = np.array([(opacity >= MASK_OPACITY).mean() for opacity, _ in layers])
    assert all(opacity.min() >= 0 and opacity.max() <= 1 for opacity, _ in layers)
    assert np.median(areas) > 0.001 and areas.max() < 0.5


def test_gray_images_stay_gray() -> None:
    image = np.repeat(picture("noise", 64, 64, 0)[..., :1], 3, axis=2)
    for seed in range(20):
        drawn, _ = draw_defect(image, image[::-1], np.random.default_rng(seed))
        assert (drawn == drawn[..., :1]).all()


@given(st.integers(0, 2**32))
def test_a_patch_is_defective_when_one_of_its_pixels_is(seed: int) -> None:
    masks = np.random.default_rng(seed).random((2, 32, 48)) < 0.01
    labels = patch_labels(masks, 4, 6)
    for index in np.ndindex(2, 4, 6):
        image, row, column = index
        expected = masks[image, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].any()
        assert labels[index] == float(expected)
