"""The live picture as JPEG, with the heat map over it: drawn when somebody asks, once for all who ask."""

from __future__ import annotations

import io
import threading
import time

import numpy as np
from PIL import Image

from orinspect_edge_runtime.overlay import draw_overlay
from orinspect_edge_runtime.preprocess import Pixels, PreprocessSpec
from orinspect_edge_runtime.watch.http.window import Sight, Window
from orinspect_edge_runtime.watch.judge import Look

# Pixels of the longer side, and how long a drawn picture is served again: both bound what viewers cost the line.
LONGEST_SIDE, HELD_S = 640, 0.2


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
        pixels = look.fitted if heat and self._letterbox else small(look.frame.pixels)
        if heat and look.verdict.anomaly_map is not None:
            pixels = draw_overlay(pixels, look.verdict.anomaly_map, look.verdict.threshold)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=85)
        return file.getvalue()


def small(pixels: Pixels) -> Pixels:
    """At most LONGEST_SIDE a side; by a whole number of pixels first, which is quick."""
    image = Image.fromarray(pixels)
    image = image.reduce(max(1, max(image.size) // (2 * LONGEST_SIDE)))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return np.asarray(image)
