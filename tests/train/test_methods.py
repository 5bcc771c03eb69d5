"""Every method: batches that the seed alone decides, a loss that reaches all weights and falls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from orinspect_train.encoder import Encoder
from orinspect_train.methods import METHODS, Batch, Method
from orinspect_train.methods.synthetic_defects import Heads

SIZE = 64
Opened = tuple[Encoder, Method]


@pytest.fixture(params=METHODS)
def opened(request: pytest.FixtureRequest) -> Opened:
    torch.manual_seed(0)
    encoder = Encoder("test_resnet", SIZE)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            # timm starts the last one of a residual branch at zero, behind which no gradient comes.
            nn.init.ones_(module.weight)
    return encoder, METHODS[request.param](encoder, SIZE, True, 1)


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def tensors(batch: Batch) -> Batch:
    return {name: torch.from_numpy(value) for name, value in batch.items()}


def test_a_batch_is_decided_by_its_seed(opened: Opened, textured: Callable[..., np.ndarray]) -> None:
    _, method = opened
    images = textured(6)
    one, same, other = (method.render(images.copy(), np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert any(not np.array_equal(one[name], other[name]) for name in one)
    np.testing.assert_array_equal(images, textured(6))


def test_batches_hold_images_and_float_labels(opened: Opened, textured: Callable[..., np.ndarray]) -> None:
    _, method = opened
    for value in method.render(textured(6), np.random.default_rng(0)).values():
        assert len(value) == 6
        assert (value.dtype, value.shape[1:]) == (np.uint8, (SIZE, SIZE, 3)) or value.dtype == np.float32


def test_the_loss_reaches_every_head_and_the_layers_it_reads(
    opened: Opened, textured: Callable[..., np.ndarray]
) -> None:
    encoder, method = opened
    batch = tensors(method.render(textured(8), np.random.default_rng(0)))
    loss, embeddings = method.loss(normalise, batch)
    assert loss.ndim == 0 and torch.isfinite(loss)
    assert embeddings.dtype == torch.float32 and embeddings.shape[1] == encoder.embedding_dim
    loss.backward()
    for name, parameter in [*method.heads.named_parameters(), *encoder.named_parameters()]:
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_training_on_one_batch_lowers_the_loss(opened: Opened, textured: Callable[..., np.ndarray]) -> None:
    encoder, method = opened
    batch = tensors(method.render(textured(8), np.random.default_rng(0)))
    optimizer = torch.optim.AdamW([*encoder.parameters(), *method.heads.parameters()], lr=1e-3)
    losses = []
    for _ in range(12):
        loss, _ = method.loss(normalise, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_half_of_the_images_carry_a_defect_and_their_patches_say_where(textured: Callable[..., np.ndarray]) -> None:
    encoder = Encoder("test_resnet", SIZE)
    method = METHODS["synthetic_defects"](encoder, SIZE, True, 1)
    batch: dict[str, Any] = method.render(textured(20), np.random.default_rng(1))
    rows, columns = encoder.grid(SIZE, SIZE)
    assert batch["patches"].shape == (20, rows * columns)
    np.testing.assert_array_equal(batch["defective"], batch["patches"].max(axis=1))
    assert batch["defective"][:10].mean() > 0.7
    assert not batch["defective"][10:].any()


def test_heads_give_a_logit_an_image_and_a_patch() -> None:
    encoder = Encoder("test_resnet", SIZE)
    image, patch = Heads(encoder)(torch.zeros(3, encoder.embedding_dim), torch.zeros(3, 16, encoder.patch_dim))
    assert (image.shape, patch.shape) == ((3,), (3, 16))
