"""The live picture as JPEG, with the heat map over it: drawn when somebody asks, once for all who ask."""

from __future__ import annotations

import threading
import time

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orinspect_edge_runtime.overlay import heat_map
from orinspect_edge_runtime.picture_file import to_jpeg
from orinspect_edge_runtime.preprocess import Pixels, PreprocessSpec
from orinspect_edge_runtime.watch.http.window import Sight, Window
from orinspect_edge_runtime.watch.judge import Look

# Pixels of the longer side, and how long a drawn picture is served again: both bound what viewers cost the line.
LONGEST_SIDE, HELD_S = 640, 0.2
# Of the heat map at its hottest.
STRENGTH = 0.6


class Live:
    """Draws what a window shows."""

    def __init__(self, window: Window, preprocess: PreprocessSpec) -> None:
        self._window, self._letterbox = window, preprocess.resize == "letterbox"
        self._lock = threading.Lock()
        self._drawn: dict[bool, tuple[float, Sight, bytes]] = {}

    def jpeg(self, heat: bool) -> tuple[Sight, bytes] | None:
        """The newest picture and its JPEG file; None before the first one. At most 1 / HELD_S are drawn a second."""
        with self._lock:
            newest, now = self._window.newest, time.monotonic()
            if newest is None:
                return None
            drawn_at, sight, content = self._drawn.get(heat, (-1e9, None, b""))
            if sight is None or (newest.number != sight.number and now > drawn_at + HELD_S):
                sight, content = newest, self._draw(newest.look, heat)
                self._drawn[heat] = (now, sight, content)
            return sight, content

    def _draw(self, look: Look, heat: bool) -> bytes:
        # The map covers the frame that entered the graph; only a stretched one covers the camera's picture too.
        image = Image.fromarray(look.fitted) if heat and self._letterbox else small(look.frame.pixels)
        if heat and look.verdict.anomaly_map is not None:
            lay_over(image, look.verdict.anomaly_map, look.verdict.threshold)
        return to_jpeg(image, quality=80)


def lay_over(image: Image.Image, anomaly_map: NDArray[np.float32], threshold: float) -> None:
    """What overlay.draw_overlay draws, for the eye only: coloured at half the map's size, then scaled by Pillow.

    That takes a tenth of the time, and Pillow lets go of the interpreter lock that the line's loop waits for.
    """
    values = anomaly_map[::2, ::2]
    weights = 255 * STRENGTH * np.clip(values / max(threshold, 1e-6), 0, 1)
    colours, mask = (
        Image.fromarray(array).resize(image.size, Image.Resampling.BILINEAR)
        for array in (heat_map(values, threshold), weights.astype(np.uint8))
    )
    image.paste(colours, mask=mask)


def small(pixels: Pixels) -> Image.Image:
    """At most LONGEST_SIDE a side; by a whole number of pixels first, which is quick."""
    image = Image.fromarray(pixels)
    image = image.reduce(max(1, max(image.size) // (2 * LONGEST_SIDE)))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return image
