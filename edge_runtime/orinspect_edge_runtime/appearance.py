"""Plain figures of a picture that a person can act on: how bright, how contrasty, how sharp, how grainy, how warm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.preprocess import Pixels

# In the order of the array: what it is called, and what more and less of it are called.
STATISTICS = {
    "brightness": ("brighter", "darker"),
    "contrast": ("more contrasty", "flatter"),
    "sharpness": ("sharper", "blurrier"),
    "grain": ("noisier", "smoother"),
    "warmth": ("redder", "bluer"),
}
SAMPLES = 256
THIRDS = np.full(3, 1 / 3, np.float32)


def appearance(pixels: Pixels) -> NDArray[np.float32]:
    """Natural logarithms of the STATISTICS of uint8 [height, width, 3], float32 [5]: differences of them are ratios.

    brightness: mean grey level. contrast: its standard deviation. sharpness, grain: mean absolute first and second
    difference of pixels beside each other, so only pictures of one size can be compared. warmth: red over blue. One is
    added to each before the logarithm. At most about SAMPLES x SAMPLES places are looked at.
    """
    height, width, _ = pixels.shape
    down, across = -(-height // SAMPLES), -(-width // SAMPLES)
    left, middle, right = (pixels[::down, k : width - 2 + k : across].astype(np.float32) for k in range(3))
    before, grey, after = (plane @ THIRDS for plane in (left, middle, right))
    red, _, blue = middle.reshape(-1, 3).mean(axis=0)
    figures = (grey.mean(), grey.std(), np.abs(after - grey).mean(), np.abs(before - 2 * grey + after).mean())
    return np.array([*np.log1p(figures), np.log1p(red) - np.log1p(blue)], np.float32)
