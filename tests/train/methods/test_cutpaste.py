from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orinspect_train.augment import Augmenter
from orinspect_train.methods import cutpaste


@pytest.mark.parametrize("paste", [cutpaste.paste_patch, cutpaste.paste_scar])
@pytest.mark.parametrize("side", [32, 64, 256])
def test_a_piece_is_pasted_and_the_rest_stays(paste: Any, side: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (side, side, 3), np.uint8)
    shares = []
    for _ in range(30):
        pasted = paste(image, rng, 0.1)
        assert pasted.shape == image.shape and pasted.dtype == np.uint8
        shares.append((pasted != image).any(2).mean())
    assert min(shares) > 0 and max(shares) < 0.2


def test_every_image_comes_whole_with_a_patch_and_with_a_scar(textured: Callable[..., np.ndarray]) -> None:
    images = cutpaste.render(textured(5), np.random.default_rng(0), Augmenter(gray=True), 0.1)["images"]
    assert images.shape == (5, 3, 64, 64, 3)
    differs = (images[:, 1:] != images[:, :1]).any(4).mean((2, 3))
    assert (differs > 0).all() and differs[:, 0].mean() > differs[:, 1].mean()
