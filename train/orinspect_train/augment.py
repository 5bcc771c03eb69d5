"""Random changes that a good image may undergo, all images of a batch at once. Deterministic in the generator given.

Every image has parameters of its own; they are drawn for the batch, and applied by few large tensor operations. Crops
go through torch's uint8 resampling, which took 17 microseconds a view at 32 pixels and 80 at 224 where Pillow took 28
and 467, and a batched grid_sample 17 and 800. Colours are one 3x3 matrix an image, blur one separable convolution.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from orinspect_train.policies import POLICIES, Policy

Pixels = NDArray[np.uint8]
Rng = np.random.Generator

# Noise is read from one table at a random place: drawing it anew takes longer than everything else together.
NOISE_SEED, NOISE_COUNT = 7, 1 << 20
CHUNK_PIXELS = 1 << 18
# In pixels: a narrower Gaussian is no blur.
LEAST_SIGMA = 0.1
# Of a blur's pixel, as a share of the middle one's: less changes no gray level.
LEAST_WEIGHT = 1e-6
# Brightness, and the two axes of colour beside it.
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
RGB = torch.linalg.inv(YIQ)


@dataclass(frozen=True)
class Augmenter:
    """A policy at work. gray: the images are gray, and stay so."""

    gray: bool
    policy: Policy = POLICIES["gray"]

    def flips(self, count: int, rng: Rng) -> NDArray[np.bool_]:
        """bool [count, 2]: whether to mirror each image upside down, and left to right, where the policy permits it."""
        permitted = np.array([self.policy.upside_down, self.policy.left_right])
        return np.asarray((rng.random((count, 2)) < 0.5) & permitted)

    def jitter(self, pixels: Pixels, rng: Rng) -> Pixels:
        """Colours, blur and noise by the policy; uint8 [B, H, W, 3] in and out, nothing moves."""
        return _in_chunks(pixels, lambda images: self._changed(images, rng))

    def view(self, pixels: Pixels, rng: Rng) -> Pixels:
        """One random view an image: placed, then `jitter`, then cut out; uint8 [B, H, W, 3] in and out."""
        view = _in_chunks(pixels, lambda images: self._changed(self._placed(images, rng), rng))
        if self.policy.cut_out:
            cut_out(view, self.policy.cut_out, rng)
        return view

    def _placed(self, images: Tensor, rng: Rng) -> Tensor:
        """Cropped, turned and mirrored, of uint8 [B, 3, H, W]."""
        policy, (height, width) = self.policy, images.shape[2:]
        placed = turned(images, policy, rng) if policy.any_turn else cropped(images, policy, rng)
        choice = torch.from_numpy(self.flips(len(images), rng))
        for axis, chosen in zip((2, 3), choice.unbind(1), strict=True):
            if chosen.any():
                placed[chosen] = placed[chosen].flip(axis)
        if policy.quarter_turns and height == width:
            quarter_turn(placed, rng)
        return placed

    def _changed(self, images: Tensor, rng: Rng) -> Tensor:
        """jitter of uint8 [B, 3, H, W]; gray images are computed in one channel."""
        policy = self.policy
        values = (images[:, :1] if self.gray else images).to(torch.float32, memory_format=torch.contiguous_format)
        matrix, offset = colour_change(values, policy, rng)
        flat = values.flatten(2)
        flat = flat.mul_(matrix).add_(offset) if self.gray else torch.baddbmm(offset, matrix, flat)
        values = flat.view(values.shape)
        if policy.blur:
            blur(values, policy.blur, policy.blur_sigma, rng)
        if policy.noise_levels:
            add_noise(values, policy.noise_levels, rng)
        return values.round_().clamp_(0, 255).to(torch.uint8).expand(images.shape)


def flip(image: NDArray[np.generic], choice: NDArray[np.bool_]) -> NDArray[np.generic]:
    """An image or mask [H, W, ...] flipped as `choice` (bool [2]) says."""
    return image[:: -1 if choice[0] else 1, :: -1 if choice[1] else 1]


def cropped(images: Tensor, policy: Policy, rng: Rng) -> Tensor:
    """A random square-ish crop of each of uint8 [B, 3, H, W], brought back to the size; the result is a new tensor."""
    count, _, height, width = images.shape
    if policy.smallest_crop == 1:
        return images.clone()
    share = np.sqrt(rng.uniform(policy.smallest_crop, 1, count))
    sides = np.maximum(1, np.rint(share[:, None] * (height, width))).astype(int)
    corners = np.floor(rng.random((count, 2)) * ((height, width) - sides + 1)).astype(int)
    out = torch.empty_like(images, memory_format=torch.channels_last)
    for index, ((top, left), (tall, wide)) in enumerate(zip(corners.tolist(), sides.tolist(), strict=True)):
        piece = images[index : index + 1, :, top : top + tall, left : left + wide]
        out[index] = functional.interpolate(piece, (height, width), mode="bilinear", antialias=True)[0]
    return out


def turned(images: Tensor, policy: Policy, rng: Rng) -> Tensor:
    """Each of uint8 [B, 3, H, W] turned by any angle and cropped; what comes from outside is mirrored in."""
    count, _, height, width = images.shape
    scale = np.sqrt(rng.uniform(policy.smallest_crop, 1, count))
    angle = rng.uniform(-np.pi, np.pi, count)
    matrices = np.zeros((count, 2, 3), np.float32)
    matrices[:, 0, 0] = matrices[:, 1, 1] = scale * np.cos(angle)
    matrices[:, 0, 1], matrices[:, 1, 0] = (
        -scale * np.sin(angle) * height / width,
        scale * np.sin(angle) * width / height,
    )
    matrices[:, :, 2] = rng.uniform(-1, 1, (count, 2)) * (1 - scale)[:, None]
    grid = functional.affine_grid(torch.from_numpy(matrices), [count, 3, height, width], align_corners=False)
    found = functional.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
    return found.round_().to(torch.uint8)


def quarter_turn(images: Tensor, rng: Rng) -> None:
    """Turn each square of [B, 3, S, S] by a random multiple of 90 degrees, in place."""
    quarters = torch.from_numpy(rng.integers(0, 4, len(images)))
    for turns in (1, 2, 3):
        chosen = quarters == turns
        if chosen.any():
            images[chosen] = torch.rot90(images[chosen], turns, (2, 3))


def colour_change(values: Tensor, policy: Policy, rng: Rng) -> tuple[Tensor, Tensor]:
    """Matrices float [B, C, C] and offsets [B, C, 1] for float [B, C, H, W], with C 1 or 3.

    Contrast is around the mean of the image. Saturation and hue are changes in YIQ space, as colour television had it:
    a linear map, where the exact hue would need a branch for every pixel.
    """
    count, channels = values.shape[:2]
    gain = _around_one(policy.contrast, count, rng)
    shift = 255 * (_around_one(policy.brightness, count, rng) - 1)
    offset = values.mean((1, 2, 3))[:, None, None] * (1 - gain) + shift
    if channels == 1:
        return gain, offset
    return gain * _tint(policy, count, rng), offset.expand(count, channels, 1)


def _tint(policy: Policy, count: int, rng: Rng) -> Tensor:
    saturation = _around_one(policy.saturation, count, rng)
    saturation[torch.from_numpy(rng.random(count) < policy.colourless)] = 0
    angle = torch.from_numpy(2 * np.pi * rng.uniform(-policy.hue, policy.hue, count)).float()
    inner = torch.zeros(count, 3, 3)
    inner[:, 0, 0] = 1
    inner[:, 1, 1] = inner[:, 2, 2] = torch.cos(angle) * saturation[:, 0, 0]
    inner[:, 2, 1] = torch.sin(angle) * saturation[:, 0, 0]
    inner[:, 1, 2] = -inner[:, 2, 1]
    tint: Tensor = RGB @ inner @ YIQ
    return tint


def blur(values: Tensor, chance: float, largest_sigma: float, rng: Rng) -> None:
    """Gaussian blur of so many of float [B, C, H, W], in place. largest_sigma: as a share of the longer side."""
    channels, height, width = values.shape[1:]
    widest = largest_sigma * max(height, width)
    chosen = torch.from_numpy(rng.random(len(values)) < chance)
    sigma = torch.from_numpy(rng.uniform(LEAST_SIGMA, max(LEAST_SIGMA, widest), len(values))).float()[chosen]
    radius, count = int(np.ceil(2.5 * widest)), len(sigma) * channels
    if not count:
        return
    kernels = gaussians(sigma, radius).repeat_interleave(channels, 0)[:, None]
    # One plane after the other as channels of one image, each with a kernel of its own.
    planes = values[chosen].view(1, count, height, width)
    planes = functional.pad(planes, [radius] * 4, mode="reflect")
    planes = functional.conv2d(planes, kernels[:, :, :, None], groups=count)
    planes = functional.conv2d(planes, kernels[:, :, None], groups=count)
    values[chosen] = planes.view(-1, channels, height, width)


def gaussians(sigma: Tensor, radius: int) -> Tensor:
    """Kernels float [B, 2 radius + 1] of sum 1, of float [B] standard deviations."""
    kernels = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma[:, None]) ** 2)
    # Processors are many times slower with numbers below the smallest normal one.
    kernels[kernels < LEAST_WEIGHT] = 0
    return kernels / kernels.sum(1, keepdim=True)


def add_noise(values: Tensor, most_levels: float, rng: Rng) -> None:
    """Add sensor noise of a standard deviation of up to `most_levels` to each of float [B, C, H, W], in place."""
    pieces = _noise(values[0].numel())
    noise = torch.from_numpy(pieces[rng.integers(0, len(pieces), len(values))])
    levels = torch.from_numpy(rng.uniform(0, most_levels, len(values))).float()
    values.addcmul_(noise.view(values.shape), levels[:, None, None, None])


def cut_out(pixels: Pixels, largest_share: float, rng: Rng) -> None:
    """Paint a rectangle of up to that share of the area over, in its image's mean colour; uint8 [B, H, W, 3], in place."""
    height, width = pixels.shape[1:3]
    for image in pixels:
        share = np.sqrt(rng.uniform(0, largest_share))
        tall, wide = max(1, round(height * share)), max(1, round(width * share))
        top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
        image[top : top + tall, left : left + wide] = image.mean((0, 1)).astype(np.uint8)


def normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """float32 [B, 3, H, W] of uint8 [B, H, W, 3], in channels-last memory. mean, std: [3], for pixels in 0..1."""
    return torch.addcmul(-mean / std, pixels.float(), 1 / (255 * std)).permute(0, 3, 1, 2)


def _in_chunks(pixels: Pixels, change: Callable[[Tensor], Tensor]) -> Pixels:
    """`change` of uint8 [B, 3, H, W], applied to [B, H, W, 3] in pieces that stay in the processor's cache."""
    step = max(1, CHUNK_PIXELS // (pixels.shape[1] * pixels.shape[2]))
    images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
    out = torch.empty(pixels.shape, dtype=torch.uint8)
    for begin in range(0, len(pixels), step):
        # Stacking planes takes half the time of copying a permuted tensor.
        torch.stack(change(images[begin : begin + step]).unbind(1), -1, out=out[begin : begin + step])
    return out.numpy()


@functools.lru_cache(maxsize=4)
def _noise(size: int) -> NDArray[np.float32]:
    """Overlapping pieces float32 [N, size] of one table of normal deviates; a view of it, not a copy."""
    table = np.random.default_rng(NOISE_SEED).standard_normal(NOISE_COUNT + size, np.float32)
    return np.lib.stride_tricks.sliding_window_view(table, size)


def _around_one(spread: float, count: int, rng: Rng) -> Tensor:
    return torch.from_numpy(rng.uniform(1 - spread, 1 + spread, count)).float()[:, None, None]
