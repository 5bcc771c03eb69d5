from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from orinspect_train.encoder import Encoder
from orinspect_train.two_scales import Resample, TwoScaleEncoder, larger


@pytest.mark.parametrize("name", ["tiny_resnet", "test_efficientnet"])
def test_embedding_and_first_half_of_the_patches_are_those_of_the_small_image(name: str) -> None:
    torch.manual_seed(0)
    encoder = Encoder(name, 64).eval()
    images = torch.randn(2, 3, 96, 160)
    small = functional.interpolate(images, (64, 96), mode="bilinear", antialias=True)
    with torch.inference_mode():
        embedding, patches = TwoScaleEncoder(encoder, (64, 96), (96, 160))(images)
        alone, its = encoder(small)
        sharp = encoder.patch_map(encoder.stages(images))
    grid = encoder.grid(64, 96)
    finer = functional.interpolate(sharp, grid, mode="bilinear", antialias=True)
    torch.testing.assert_close(embedding, alone, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(patches[..., : encoder.patch_dim], its, rtol=1e-3, atol=1e-4)
    expected = finer.flatten(2).transpose(1, 2)
    torch.testing.assert_close(patches[..., encoder.patch_dim :], expected, rtol=1e-3, atol=1e-4)
    assert patches.shape == (2, grid[0] * grid[1], 2 * encoder.patch_dim)


# torch 2.14 itself repeats the first row of images that are one pixel wide.
@given(st.tuples(*[st.integers(2, 40)] * 4), st.integers(0, 99))
def test_resampling_is_the_antialiased_one_of_torch(sides: tuple[int, int, int, int], seed: int) -> None:
    before, after = sides[:2], sides[2:]
    images = torch.randn(1, 2, *before, generator=torch.Generator().manual_seed(seed))
    expected = functional.interpolate(images, after, mode="bilinear", antialias=True)
    torch.testing.assert_close(Resample(before, after)(images), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(Resample(before, after)(torch.ones_like(images)), torch.ones_like(expected))


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((192, 192), 1.67, (320, 320)),
        ((64, 96), 1.5, (96, 160)),
        ((192, 192), 1.01, (192, 192)),
        ((8, 8), 1.1, (32, 32)),
    ],
)
def test_sides_are_multiples_of_the_stride(size: tuple[int, int], scale: float, expected: tuple[int, int]) -> None:
    assert larger(size, scale, 32) == expected
