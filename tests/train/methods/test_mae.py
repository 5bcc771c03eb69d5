from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from orinspect_edge_runtime.errors import ConfigError
from orinspect_train.augment import Augmenter
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Method, Setting, mae

SIZE, PATCH = 64, 16


@pytest.fixture
def opened() -> tuple[Encoder, Method]:
    torch.manual_seed(0)
    encoder = Encoder("test_vit", SIZE).eval()
    return encoder, mae.open_method(encoder, Setting(SIZE, Augmenter(gray=True)), mae.Options(decoder_dim=32))


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def drawn(method: Method, images: np.ndarray) -> dict[str, torch.Tensor]:
    batch = method.render(images, np.random.default_rng(0))
    return {name: torch.from_numpy(value) for name, value in batch.items()}


def changed(batch: dict[str, torch.Tensor], mask: float) -> dict[str, torch.Tensor]:
    """The batch with another picture in the patches whose mask is `mask`."""
    where = (batch["mask"] == mask).repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)[..., None]
    return batch | {"images": torch.where(where, batch["images"].flip(2).flip(0), batch["images"])}


def test_three_quarters_are_left_out(opened: tuple[Encoder, Method], textured: Callable[..., np.ndarray]) -> None:
    mask = drawn(opened[1], textured(5))["mask"]
    assert mask.shape == (5, SIZE // PATCH, SIZE // PATCH)
    assert mask.sum((1, 2)).tolist() == [12] * 5
    assert len({tuple(one.flatten().tolist()) for one in mask}) > 1


def test_what_is_left_out_is_asked_for_and_not_seen(
    opened: tuple[Encoder, Method], textured: Callable[..., np.ndarray]
) -> None:
    _, method = opened
    batch = drawn(method, textured(4))
    loss, embeddings = method.loss(normalise, batch, 0.0)
    other_loss, same = method.loss(normalise, changed(batch, 1), 0.0)
    torch.testing.assert_close(same, embeddings)
    assert abs(other_loss.item() - loss.item()) > 1e-4
    assert not torch.allclose(method.loss(normalise, changed(batch, 0), 0.0)[1], embeddings)


def test_the_tokens_are_those_of_the_exported_encoder(
    opened: tuple[Encoder, Method], textured: Callable[..., np.ndarray]
) -> None:
    encoder, method = opened
    loss: Any = method.loss
    assert isinstance(loss, partial)
    masked, images = loss.args[0], normalise(torch.from_numpy(textured(3)))
    tokens = masked.encode(images)[:, masked.vit.num_prefix_tokens :]
    wanted = encoder.stages(images)[encoder.embedding_layer].flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens, wanted)


@pytest.mark.parametrize("name", ["tiny_resnet", "deit_tiny_distilled_patch16_224"])
def test_other_encoders_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"for {name!r} use simmim"):
        mae.open_method(Encoder(name, SIZE), Setting(SIZE, Augmenter(gray=True)), mae.Options())
