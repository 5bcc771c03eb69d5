"""Heat maps: black at a usual good patch, half scale at the threshold, drawn at the image's own size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from PIL import Image

from orinspect_edge_runtime.overlay import draw_overlay, heat_map
from orinspect_edge_runtime.picture_file import to_png

MAPS = arrays_of.arrays(
    np.float32,
    arrays_of.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.floats(-1e6, 1e6, width=32),
)
GRAY = np.full((20, 30, 3), 100, np.uint8)


@given(MAPS, st.floats(-10, 1e4))
def test_any_map_gives_colours(anomaly_map: np.ndarray, threshold: float) -> None:
    colours = heat_map(anomaly_map, threshold)
    assert colours.dtype == np.uint8
    assert colours.shape == (*anomaly_map.shape, 3)
    drawn = draw_overlay(GRAY, anomaly_map, threshold)
    assert (drawn.dtype, drawn.shape) == (GRAY.dtype, GRAY.shape)


def test_colours_begin_black_and_end_yellow() -> None:
    colours = heat_map(np.array([[-5, 0, 2, 6, 1e6]], np.float32), 2.0)[0]
    assert colours[0].tolist() == colours[1].tolist() == [0, 0, 4]
    assert colours[4].tolist() == [252, 255, 164]


def test_far_above_the_threshold_colours_still_differ() -> None:
    colours = heat_map(np.array([[2, 6, 14]], np.float32), 2.0)[0]
    assert len({tuple(colour) for colour in colours.tolist()}) == 3


@given(st.floats(0.01, 100))
def test_hotter_is_brighter(threshold: float) -> None:
    steps = np.linspace(0, 2 * threshold, 50, dtype=np.float32)[None]
    brightness = heat_map(steps, threshold)[0].astype(int) @ [299, 587, 114]
    assert (np.diff(brightness) >= 0).all()
    assert brightness[0] < brightness[-1]


def test_good_places_keep_the_image_and_hot_ones_do_not() -> None:
    anomaly_map = np.zeros((10, 15), np.float32)
    anomaly_map[:, 10:] = 4.0
    drawn = draw_overlay(GRAY, anomaly_map, 2.0)
    np.testing.assert_array_equal(drawn[:, :16], GRAY[:, :16])
    assert (drawn[:, 24:] != GRAY[:, 24:]).any(axis=2).all()
    np.testing.assert_array_equal(draw_overlay(GRAY, anomaly_map, 2.0, strength=0.0), GRAY)


def test_strength_weighs_image_and_colour() -> None:
    hot = np.full((2, 3), 1e6, np.float32)
    expected = 0.25 * 100 + 0.75 * np.array([252, 255, 164])
    assert np.abs(draw_overlay(GRAY, hot, 1.0, strength=0.75) - expected).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (9, 5, 3)])
def test_png_keeps_every_pixel(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    content = to_png(pixels)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)
    assert to_png(pixels) == content
