"""Fake quantisation: what INT8 can hold, with gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orinspect_train.encoder import Encoder
from orinspect_train.fake_quantisation import STEPS, FakeInt8, least_error_reach, round_to_steps, round_weight


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50), st.floats(0.0078125, 1024, width=32))
def test_values_are_whole_steps_within_the_range(values: list[float], step: float) -> None:
    rounded = round_to_steps(torch.tensor(values), torch.tensor(step)).double() / step
    assert (rounded - rounded.round()).abs().max() < 1e-3
    assert rounded.abs().max() <= STEPS + 1e-3


def test_gradients_pass_the_rounding_but_not_the_cut() -> None:
    values = torch.tensor([0.3, -1.2, 500.0], requires_grad=True)
    round_to_steps(values, torch.tensor(1.0)).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1.0, 1.0, 0.0]


def test_every_output_channel_of_a_weight_has_its_own_step() -> None:
    weight = torch.tensor([[1.0, 0.26], [1000.0, 260.0], [0.0, 0.0]])
    rounded = round_weight(weight)
    assert torch.allclose(rounded[0] * 1000, rounded[1])
    assert rounded[0].tolist() == pytest.approx([1.0, 33 / STEPS])
    assert rounded[2].tolist() == [0.0, 0.0]


def test_the_range_leaves_out_what_costs_more_than_it_is_worth() -> None:
    values = torch.cat([torch.linspace(0, 1, 1_000_000), torch.tensor([3.0])])
    assert least_error_reach(values) < 1.5
    assert least_error_reach(torch.linspace(0, 1, 5000)) == pytest.approx(1.0, abs=0.05)
    assert least_error_reach(torch.zeros(10)) == 0.0


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit"])
def test_features_are_rounded_and_the_encoder_is_left_alone(name: str, textured: Callable[..., np.ndarray]) -> None:
    torch.manual_seed(0)
    encoder = Encoder(name, 64).eval()
    images = torch.from_numpy(textured(4)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        exact = encoder(images)
        fake = FakeInt8(encoder, images)
        rounded = fake.features(images)
        again = encoder(images)
    for before, after, unchanged in zip(exact, rounded, again, strict=True):
        assert 0 < (after - before).abs().max() < 0.5 * before.abs().max()
        assert torch.equal(before, unchanged)


def test_all_weights_of_the_encoder_get_a_gradient(textured: Callable[..., np.ndarray]) -> None:
    torch.manual_seed(0)
    encoder = Encoder("test_resnet", 64).eval()
    images = torch.from_numpy(textured(2)).permute(0, 3, 1, 2).float() / 255
    embedding, patches = FakeInt8(encoder, images).features(images)
    (embedding.square().sum() + patches.square().sum()).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in encoder.parameters())
