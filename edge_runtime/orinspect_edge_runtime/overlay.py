"""Heat maps drawn over images, and the mark of what lies above the threshold."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orinspect_edge_runtime.picture_file import to_png
from orinspect_edge_runtime.preprocess import Pixels

# Anchor colours of a perceptually even map from dark violet to yellow (after matplotlib's inferno, CC0).
_COLOURS = np.array(
    [
        [0, 0, 4],
        [40, 11, 84],
        [101, 21, 110],
        [159, 42, 99],
        [212, 72, 66],
        [245, 125, 21],
        [250, 193, 39],
        [252, 255, 164],
    ],
    np.float32,
)
_LINE = np.array([0, 229, 255], np.uint8)


def heat_map(anomaly_map: NDArray[np.float32], threshold: float) -> Pixels:
    """uint8 [h, w, 3] colours of a map: black at 0 (a usual good patch), half scale at the threshold.

    A value v has the place v / (v + threshold): the same colour in every picture, and defects many times above the
    threshold still differ.
    """
    above = np.maximum(anomaly_map, 0)
    position = above / (above + max(threshold, 1e-6)) * (len(_COLOURS) - 1)
    low = np.minimum(position.astype(np.intp), len(_COLOURS) - 2)
    part = (position - low)[..., None].astype(np.float32)
    mixed = _COLOURS[low] * (1 - part) + _COLOURS[low + 1] * part
    return np.asarray(mixed.round().astype(np.uint8))


def draw_overlay(pixels: Pixels, anomaly_map: NDArray[np.float32], threshold: float, strength: float = 0.6) -> Pixels:
    """uint8 [h, w, 3] of the image at its own size with the heat map over it, and a line around what is above the
    threshold; strength 0..1 at the hottest places."""
    height, width = pixels.shape[:2]
    resized = Image.fromarray(anomaly_map).resize((width, height), Image.Resampling.BILINEAR)
    values = np.asarray(resized, np.float32)
    weight = (strength * np.clip(values / max(threshold, 1e-6), 0, 1))[..., None]
    mixed = (pixels * (1 - weight) + heat_map(values, threshold) * weight).round().astype(np.uint8)
    if strength > 0:
        mixed[outline(values > threshold, max(1, min(height, width) // 150))] = _LINE
    return np.asarray(mixed)


def outline(mask: NDArray[np.bool_], thickness: int) -> NDArray[np.bool_]:
    """The rim of a mask's regions, bool [h, w], inside of them; the picture's own border is no rim."""
    inner = mask
    for _ in range(thickness):
        padded = np.pad(inner, 1, mode="edge")
        inner = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def thumbnail_uri(pixels: Pixels, width: int) -> str:
    """A data URI of a PNG file with the picture at most that wide and high."""
    image = Image.fromarray(pixels)
    image.thumbnail((width, width))
    return "data:image/png;base64," + base64.b64encode(to_png(np.asarray(image))).decode()
