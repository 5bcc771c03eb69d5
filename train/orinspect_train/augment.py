"""Random changes that a good image may undergo without becoming another one. Deterministic in the generator given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Rng = np.random.Generator

BRIGHTNESS, CONTRAST, NOISE_LEVELS = 0.15, 0.15, 4.0
# Share of the image's area that a view shows.
SMALLEST_CROP = 0.4


@dataclass(frozen=True)
class Augmenter:
    """The random changes of a run. gray: the images are gray, and stay so."""

    gray: bool

    def flips(self, count: int, rng: Rng) -> NDArray[np.bool_]:
        """See `flips`."""
        return flips(count, rng)

    def jitter(self, pixels: Pixels, rng: Rng) -> Pixels:
        """See `jitter`."""
        return jitter(pixels, rng, gray=self.gray)

    def view(self, pixels: Pixels, rng: Rng) -> Pixels:
        """See `view`."""
        return view(pixels, rng, gray=self.gray)


def flips(count: int, rng: Rng) -> NDArray[np.bool_]:
    """bool [count, 2]: whether to flip each image upside down, and left to right."""
    return rng.random((count, 2)) < 0.5


def flip(image: NDArray[np.generic], choice: NDArray[np.bool_]) -> NDArray[np.generic]:
    """An image or mask [H, W, ...] flipped as `choice` (bool [2]) says."""
    return image[:: -1 if choice[0] else 1, :: -1 if choice[1] else 1]


def jitter(pixels: Pixels, rng: Rng, *, gray: bool) -> Pixels:
    """Brightness and contrast by up to 15 %, and sensor noise of up to 4 gray levels; uint8 [B, H, W, 3].

    gray: one noise value a pixel, so that gray images stay gray.
    """
    batch, height, width, channels = pixels.shape
    drawn = pixels[..., :1] if gray else pixels
    gain = _around_one(CONTRAST, batch, rng)
    shift = 255 * (_around_one(BRIGHTNESS, batch, rng) - 1)
    level = rng.uniform(0, NOISE_LEVELS, (batch, 1, 1, 1)).astype(np.float32)
    values = drawn.astype(np.float32)
    centre = values.mean(axis=(1, 2, 3), keepdims=True)
    values = (values - centre) * gain + centre + shift
    values += level * rng.standard_normal(values.shape, np.float32)
    np.clip(np.rint(values, out=values), 0, 255, out=values)
    return np.ascontiguousarray(np.broadcast_to(values.astype(np.uint8), (batch, height, width, channels)))


def view(pixels: Pixels, rng: Rng, *, gray: bool) -> Pixels:
    """One random view an image, all at once: a crop of 40 to 100 % of the area, flipped, then `jitter`; same shape."""
    batch = len(pixels)
    scale = np.sqrt(rng.uniform(SMALLEST_CROP, 1, batch))
    centres = rng.uniform(-1, 1, (batch, 2)) * (1 - scale)[:, None]
    signs = np.where(flips(batch, rng), -1.0, 1.0)
    matrices = np.zeros((batch, 2, 3), np.float32)
    matrices[:, 0, 0], matrices[:, 1, 1] = scale * signs[:, 0], scale * signs[:, 1]
    matrices[:, :, 2] = centres
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    grid = functional.affine_grid(torch.from_numpy(matrices), list(images.shape), align_corners=False)
    cropped = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return jitter(cropped.round().to(torch.uint8).permute(0, 2, 3, 1).numpy(), rng, gray=gray)


def normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """float32 [B, 3, H, W] of uint8 [B, H, W, 3], in channels-last memory. mean, std: [3], for pixels in 0..1."""
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def _around_one(spread: float, count: int, rng: Rng) -> Floats:
    return rng.uniform(1 - spread, 1 + spread, (count, 1, 1, 1)).astype(np.float32)
