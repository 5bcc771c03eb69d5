"""The figures of a picture move the way their words say."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from orinspect_edge_runtime.appearance import STATISTICS, appearance

RNG = np.random.default_rng(0)
PICTURE = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (300, 400, 3), dtype=np.uint8)).filter(ImageFilter.GaussianBlur(1))
)


def moved(pixels: np.ndarray) -> dict[str, float]:
    return dict(zip(STATISTICS, (appearance(pixels) - appearance(PICTURE)).tolist(), strict=True))


def test_a_darker_picture_is_darker_by_its_ratio() -> None:
    change = moved((PICTURE * 0.8).astype(np.uint8))
    assert np.exp(change["brightness"]) == pytest.approx(0.8, abs=0.01)
    assert abs(change["warmth"]) < 0.01


def test_each_figure_answers_to_its_cause() -> None:
    blurred = np.asarray(Image.fromarray(PICTURE).filter(ImageFilter.GaussianBlur(1.5)))
    noisy = (PICTURE + RNG.normal(0, 20, (300, 400, 1))).clip(0, 255).astype(np.uint8)
    red = PICTURE.copy()
    red[:, :, 2] //= 2
    flat = ((PICTURE.astype(int) - 110) // 2 + 110).astype(np.uint8)
    assert moved(blurred)["sharpness"] < -0.2 and abs(moved(blurred)["brightness"]) < 0.02
    assert moved(noisy)["grain"] > moved(noisy)["sharpness"] > 0.2
    assert moved(red)["warmth"] > 0.5
    assert moved(flat)["contrast"] < -0.4


@pytest.mark.parametrize("shape", [(8, 8), (8, 3000), (2000, 9), (257, 256)])
def test_any_size_gives_five_numbers(shape: tuple[int, int]) -> None:
    for fill in (0, 255):
        assert np.isfinite(appearance(np.full((*shape, 3), fill, np.uint8))).all()
