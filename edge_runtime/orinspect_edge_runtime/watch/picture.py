"""Region, rotation and frame rate of a source, and the watch over a camera that shows nothing new."""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from orinspect_edge_runtime.errors import ImageError
from orinspect_edge_runtime.preprocess import Frame, Pixels
from orinspect_edge_runtime.watch.config import SourceConfig


def cut(frame: Frame, config: SourceConfig) -> Frame:
    """The frame's region, turned. Raises ImageError when the region lies outside of the picture."""
    pixels = frame.pixels
    if config.region:
        x, y, width, height = config.region
        if x + width > pixels.shape[1] or y + height > pixels.shape[0]:
            have = f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise ImageError(f"{frame.source}: region {list(config.region)} lies outside of the picture ({have})")
        pixels = pixels[y : y + height, x : x + width]
    if config.rotate:
        pixels = np.rot90(pixels, -config.rotate // 90)
    return frame if pixels is frame.pixels else dataclasses.replace(frame, pixels=np.ascontiguousarray(pixels))


class RateCap:
    """Lets at most fps_max frames a second through, judged by their times; 0: all."""

    def __init__(self, fps_max: float) -> None:
        self._interval_s = 1 / fps_max if fps_max else 0.0
        self._next = 0.0

    def lets(self, captured_at: float) -> bool:
        """Whether a frame of that time is judged. A clock that was set back does not stop it."""
        if self._next - self._interval_s <= captured_at < self._next:
            return False
        self._next = captured_at + self._interval_s
        return True


class CameraWatch:
    """Says what is wrong with a camera's pictures: black, or frozen. A sensor's noise changes every real picture."""

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self._digest, self._since = -1, 0.0

    def alarm(self, frame: Frame) -> str:
        """`black`, `frozen` or nothing."""
        if self._config.black_below and _brightest(frame.pixels) < self._config.black_below:
            return "black"
        if not self._config.frozen_after_s:
            return ""
        digest = zlib.adler32(frame.pixels[::4, ::4].tobytes())
        if digest != self._digest:
            self._digest, self._since = digest, frame.captured_at
        return "frozen" if frame.captured_at - self._since >= self._config.frozen_after_s else ""


def _brightest(pixels: Pixels) -> int:
    # Every fourth pixel: a hot one among them must not hide a dark picture, nor may the whole take milliseconds.
    return int(np.percentile(pixels[::4, ::4], 99))
