"""The images of a run: decoded once, kept in memory as uint8 at the model's size."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import Skipped, fit_to_model, list_images, read_frames
from orinspect_train.config import PretrainConfig

FEWEST_IMAGES = 8
# Tags that keep the random streams of one seed apart.
CHOICE_STREAM, SPLIT_STREAM = 1, 2


@dataclass(frozen=True)
class ImageSet:
    """pixels: uint8 [N, H, W, 3]. paths: of the N files. skipped: the unreadable ones. gray: every pixel is gray."""

    pixels: NDArray[np.uint8]
    paths: tuple[Path, ...]
    skipped: tuple[Skipped, ...]
    gray: bool

    @property
    def digest(self) -> str:
        """sha256 (hex) of all pixels in order: a resumed run must see the images it began with."""
        return hashlib.sha256(np.ascontiguousarray(self.pixels).data).hexdigest()

    def split(self, share: float, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Training and held-out images, in an order drawn by the seed; at least 2 are held out."""
        order = np.random.default_rng([seed, SPLIT_STREAM]).permutation(len(self.pixels))
        kept = max(2, round(share * len(order)))
        return self.pixels[order[kept:]], self.pixels[order[:kept]]


def read_images(data: Path, config: PretrainConfig, progress: Callable[[float], None] | None = None) -> ImageSet:
    """Decode and resize the images of a folder; `progress` is called with the share done.

    Raises InputError: no image, fewer than 8 readable ones, or over 5 % unreadable.
    """
    paths = _chosen(list_images([data]), config)
    spec, skipped = config.preprocess, list[Skipped]()
    pixels = np.empty((len(paths), spec.height, spec.width, 3), np.uint8)
    used: list[Path] = []
    for frame in read_frames(paths, spec, skipped):
        pixels[len(used)] = fit_to_model(frame.pixels, spec)
        used.append(paths[frame.index])
        if progress is not None:
            progress((frame.index + 1) / len(paths))
    if len(used) < FEWEST_IMAGES:
        raise InputError(f"{data}: {len(used)} readable images; pretraining needs at least {FEWEST_IMAGES}")
    pixels = pixels[: len(used)]
    return ImageSet(pixels, tuple(used), tuple(skipped), _is_gray(pixels))


def _chosen(paths: list[Path], config: PretrainConfig) -> list[Path]:
    if len(paths) <= config.max_images:
        return paths
    chosen = np.random.default_rng([config.seed, CHOICE_STREAM]).permutation(len(paths))[: config.max_images]
    return [paths[index] for index in np.sort(chosen)]


def _is_gray(pixels: NDArray[np.uint8]) -> bool:
    """Image by image: comparing all at once would double the memory."""
    return all(bool((image[..., :1] == image).all()) for image in pixels)
