"""Defects for the alignment check: stains, missing pieces and scratches, by other rules than the pretext's.

The encoder was trained to notice `defects.py`; whether it got better at noticing what it never saw is asked with these.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Rng = np.random.Generator

COARSE_CELLS = 6


def stain(image: Pixels, rng: Rng) -> Pixels:
    """A blotch with a ragged rim, a little brighter or darker: smoothed noise above a level, near a random place."""
    height, width = image.shape[:2]
    cloud = _smooth(rng.random((COARSE_CELLS, COARSE_CELLS)), height, width)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    centre, radius = rng.uniform(0.2, 0.8, 2), rng.uniform(0.06, 0.16)
    distance = np.hypot(rows / height - centre[0], columns / width - centre[1]) / radius
    opacity = np.clip(1.3 + cloud - 1.5 * distance, 0, 1)
    change = rng.uniform(20, 55) * rng.choice([-1.0, 1.0])
    return _clip(image + change * opacity[..., None])


def missing(image: Pixels, rng: Rng) -> Pixels:
    """A square whose texture is gone: each pixel replaced by the mean colour of the square, with a soft rim."""
    height, width = image.shape[:2]
    tall, wide = (max(4, round(side * rng.uniform(0.08, 0.22))) for side in (height, width))
    row, column = rng.integers(0, height - tall), rng.integers(0, width - wide)
    opacity = np.zeros((height, width), np.float32)
    opacity[row : row + tall, column : column + wide] = 1
    mean = image[row : row + tall, column : column + wide].mean(axis=(0, 1))
    return _clip(image + (mean - image) * opacity[..., None])


def scratch(image: Pixels, rng: Rng) -> Pixels:
    """A thin bent line (a quadratic Bézier curve), mostly brighter, of even strength along its length."""
    height, width = image.shape[:2]
    corners = rng.uniform(0.05, 0.95, (3, 2)) * (height, width)
    place = np.linspace(0, 1, 4 * max(height, width))[:, None]
    points = (1 - place) ** 2 * corners[0] + 2 * place * (1 - place) * corners[1] + place**2 * corners[2]
    opacity = np.zeros((height, width), np.float32)
    thickness = max(1, round(min(height, width) / 96))
    for offset in range(thickness):
        rows, columns = (np.rint(points).astype(int) + offset).T
        opacity[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)] = 1
    change = rng.uniform(25, 70) * rng.choice([-1.0, 1.0, 1.0])
    return _clip(image + change * opacity[..., None])


def spot(image: Pixels, rng: Rng) -> Pixels:
    """One to three small round spots with a soft rim, each brighter or darker: pores, dust, spatter."""
    height, width = image.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    change = np.zeros((height, width), np.float32)
    for _ in range(rng.integers(1, 4)):
        centre, radius = rng.uniform(0.1, 0.9, 2), max(1.0, rng.uniform(0.008, 0.025) * min(height, width))
        distance = np.hypot(rows - centre[0] * height, columns - centre[1] * width)
        sign = rng.choice([-1.0, 1.0])
        change += sign * rng.uniform(30, 80) * np.clip(1.5 + radius - distance, 0, 1)
    return _clip(image + change[..., None])


def blurred(image: Pixels, rng: Rng) -> Pixels:
    """A third of the image out of focus, as by a drop on the lens or a part that stands up."""
    height, width = image.shape[:2]
    soft = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.02 * min(height, width))), np.float32)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    centre = rng.uniform(0.25, 0.75, 2)
    distance = np.hypot(rows / height - centre[0], columns / width - centre[1]) / 0.33
    opacity = np.clip(3 - 3 * distance, 0, 1)
    return _clip(image + (soft - image) * opacity[..., None])


def misplaced(image: Pixels, rng: Rng) -> Pixels:
    """All of it moved by 4 to 10 % of the side, with the rim repeated: no defect on a surface without a layout."""
    height, width = image.shape[:2]
    rows, columns = np.arange(height), np.arange(width)
    down, right = rng.uniform(0.04, 0.10, 2) * rng.choice([-1, 1], 2) * (height, width)
    moved = image[np.clip(rows - round(down), 0, height - 1)][:, np.clip(columns - round(right), 0, width - 1)]
    return np.asarray(moved)


Draw = Callable[[Pixels, Rng], Pixels]
# These decide whether an adapted encoder is kept.
PROBE_DEFECTS: dict[str, Draw] = {"stain": stain, "missing": missing, "scratch": scratch}
# These are reported by `orinspect probe`.
ALL_DEFECTS: dict[str, Draw] = PROBE_DEFECTS | {"spot": spot, "blurred": blurred, "misplaced": misplaced}


def _smooth(values: NDArray[np.float64], height: int, width: int) -> Floats:
    coarse = Image.fromarray(values.astype(np.float32) - np.float32(0.5))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)


def _clip(values: NDArray[np.floating]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
