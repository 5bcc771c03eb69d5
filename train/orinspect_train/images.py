"""The images of a run: decoded once, kept in memory as uint8 at the model's size."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import Skipped, fit_to_model, list_images, read_frames
from orinspect_train.config import PretrainConfig

FEWEST_IMAGES = 8
# Keeps the random streams of one seed apart.
CHOICE_STREAM = 1


class Split(NamedTuple):
    """Views of one array, uint8 [n, H, W, 3]."""

    training: NDArray[np.uint8]
    held_out: NDArray[np.uint8]


@dataclass(frozen=True)
class ImageSet:
    """pixels: uint8 [N, H, W, 3], in an order drawn by the seed. paths: of the N files. skipped: the unreadable ones.
    gray: every pixel is gray."""

    pixels: NDArray[np.uint8]
    paths: tuple[Path, ...]
    skipped: tuple[Skipped, ...]
    gray: bool

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of all pixels in order: a resumed run must see the images it began with."""
        return hashlib.sha256(np.ascontiguousarray(self.pixels).data).hexdigest()

    def split(self, share: float) -> Split:
        """Images to train on, and the share that is kept from it (at least 2). The order is random already."""
        kept = max(2, round(share * len(self.pixels)))
        return Split(self.pixels[kept:], self.pixels[:kept])


def read_images(
    data: Path,
    config: PretrainConfig,
    progress: Callable[[float], None] | None = None,
    *,
    deadline: float = math.inf,
) -> ImageSet:
    """Decode and resize the images of a folder; `progress` is called with the share done.

    deadline: on time.monotonic(); images that are not read by then are left out, but for the first 8.
    Raises InputError: no image, fewer than 8 readable ones, or over 5 % unreadable.
    """
    paths = list_images([data])
    order = np.random.default_rng([config.seed, CHOICE_STREAM]).permutation(len(paths))
    paths = [paths[index] for index in order[: config.max_images]]
    spec, skipped = config.preprocess, list[Skipped]()
    pixels = np.empty((len(paths), spec.height, spec.width, 3), np.uint8)
    used: list[Path] = []
    for frame in read_frames(paths, spec, skipped):
        pixels[len(used)] = fit_to_model(frame.pixels, spec)
        used.append(paths[frame.index])
        if progress is not None:
            progress((frame.index + 1) / len(paths))
        if len(used) >= FEWEST_IMAGES and time.monotonic() > deadline:
            break
    if len(used) < FEWEST_IMAGES:
        raise InputError(f"{data}: {len(used)} readable images; pretraining needs at least {FEWEST_IMAGES}")
    pixels = pixels[: len(used)]
    return ImageSet(pixels, tuple(used), tuple(skipped), _is_gray(pixels))


def _is_gray(pixels: NDArray[np.uint8]) -> bool:
    """Image by image: comparing all at once would double the memory."""
    return all(bool((image[..., :1] == image).all()) for image in pixels)
