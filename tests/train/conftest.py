"""Images and configurations small enough to train in moments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from orinspect_train.config import PretrainConfig

SIDE = 64


def draw_textured(count: int, seed: int = 0, side: int = SIDE) -> np.ndarray:
    """uint8 [count, side, side, 3]: gray stripes of random phase and period, with a little noise."""
    rng = np.random.default_rng(seed)
    columns = np.arange(side)
    images = np.empty((count, side, side, 3), np.uint8)
    for image in images:
        stripes = 120 + 40 * np.sin(columns / rng.uniform(2, 6) + rng.uniform(0, 6))
        image[...] = (stripes + rng.normal(0, 4, (side, side)))[..., None].clip(0, 255)
    return images


@pytest.fixture
def textured() -> Callable[..., np.ndarray]:
    """draw_textured: (count, seed, side) to gray striped images, uint8 [count, side, side, 3]."""
    return draw_textured


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 gray pictures of 64x64 pixels."""
    folder = tmp_path_factory.mktemp("images")
    for number, pixels in enumerate(draw_textured(24)):
        Image.fromarray(pixels[..., 0]).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def on_processor() -> Iterator[None]:
    """Train on the processor, also where there is a GPU: only there do equal runs give equal bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        # For the processes that a test starts.
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


@pytest.fixture
def tiny() -> Callable[..., PretrainConfig]:
    """A configuration of a tiny encoder at 64 pixels; keyword arguments replace its fields."""
    base = PretrainConfig(
        encoder="test_efficientnet",
        init="scratch",
        size=SIDE,
        epochs=2,
        batch_size=4,
        precision="fp32",
        log_every=1,
        checkpoint_every=3,
    )
    return lambda **fields: dataclasses.replace(base, **fields)
