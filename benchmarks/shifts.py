"""What goes wrong on a line, done to pictures: light, focus, mounting, noise, compression."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]
Shift = Callable[[Pixels, np.random.Generator], Pixels]


def _gain(factor: float) -> Shift:
    return lambda pixels, rng: (pixels * np.float32(factor) + np.float32(0.5)).clip(0, 255).astype(np.uint8)


def _blur(radius: float) -> Shift:
    return lambda pixels, rng: np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _turn(degrees: float) -> Shift:
    def turn(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        image = Image.fromarray(np.pad(pixels, ((40, 40), (40, 40), (0, 0)), mode="reflect"))
        return np.asarray(image.rotate(degrees, Image.Resampling.BILINEAR))[40:-40, 40:-40]

    return turn


def _move(share: float) -> Shift:
    def move(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        by = round(share * pixels.shape[1])
        return np.pad(pixels, ((0, 0), (by, 0), (0, 0)), mode="reflect")[:, : pixels.shape[1]]

    return move


def _noise(deviation: float) -> Shift:
    def noise(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        # Grey cameras: the same noise in the three channels.
        grain = rng.normal(0, deviation, pixels.shape[:2]).astype(np.float32)
        return (pixels + grain[:, :, None] + np.float32(0.5)).clip(0, 255).astype(np.uint8)

    return noise


def _jpeg(quality: int) -> Shift:
    def compress(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return compress


SHIFTS: dict[str, Shift] = {
    "exposure -10 %": _gain(0.9),
    "exposure -20 %": _gain(0.8),
    "exposure +20 %": _gain(1.2),
    "blur, radius 1 px": _blur(1.0),
    "blur, radius 2 px": _blur(2.0),
    "turned by 2 degrees": _turn(2.0),
    "turned by 5 degrees": _turn(5.0),
    "camera moved by 3 %": _move(0.03),
    "noise, 5 grey levels": _noise(5.0),
    "noise, 10 grey levels": _noise(10.0),
    "JPEG quality 50": _jpeg(50),
    "JPEG quality 20": _jpeg(20),
}
