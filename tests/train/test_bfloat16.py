from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn
from torch.nn import functional

from orinspect_train.bfloat16 import FasterBfloat16


def gradients(groups: int, stride: int, wrapped: bool, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 8, 12, 12, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(8, 8 // groups, 5, 5, generator=generator).requires_grad_()

    def forward() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            return functional.conv2d(images, weight, None, stride, 2, 1, groups)

    if wrapped:
        with FasterBfloat16():
            out = forward()
    else:
        out = forward()
    out.float().square().sum().backward()
    assert images.grad is not None and weight.grad is not None
    return [out.detach().float(), images.grad.float(), weight.grad]


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_are_those_of_the_plain_convolution(stride: int) -> None:
    for found, exact in zip(
        gradients(8, stride, True, torch.bfloat16), gradients(8, stride, False, torch.float32), strict=True
    ):
        # bfloat16 has 8 significant bits.
        assert (found - exact).norm() < 0.01 * exact.norm()


def test_the_weight_gradient_is_at_least_as_exact_as_in_bfloat16() -> None:
    exact = gradients(8, 1, False, torch.float32)[2]
    wrapped, plain = (gradients(8, 1, on, torch.bfloat16)[2] for on in (True, False))
    assert wrapped.dtype == torch.float32
    assert (wrapped - exact).norm() <= 1.1 * (plain - exact).norm()


@pytest.mark.parametrize(("groups", "dtype"), [(1, torch.bfloat16), (8, torch.float32)])
def test_other_convolutions_are_left_alone(groups: int, dtype: torch.dtype) -> None:
    for found, plain in zip(gradients(groups, 1, True, dtype), gradients(groups, 1, False, dtype), strict=True):
        assert torch.equal(found, plain)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU])
def test_an_activation_in_place_leaves_its_input_alone_with_the_same_values_and_gradients(activation: type) -> None:
    start = 4 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.bfloat16)
    found = []
    for mode in (contextlib.nullcontext(), FasterBfloat16()):
        leaf = start.clone().requires_grad_()
        before = leaf * 1
        with mode:
            after = activation(inplace=True)(before)
        assert (after is before) == (len(found) == 0)
        after.float().square().sum().backward()
        found.append((after.detach(), leaf.grad))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
