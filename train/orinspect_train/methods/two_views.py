"""Two views of every image and a criterion of their projections: what the joint-embedding methods share."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from orinspect_train.augment import Augmenter
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Batch, Method, Normalise


def open_two_views(encoder: Encoder, head: nn.Module, criterion: nn.Module, augmenter: Augmenter) -> Method:
    """The method that minimises `criterion` of two batches of projections [B, D]."""
    return Method(partial(render, augmenter=augmenter), head, partial(loss_of, encoder, head, criterion))


def loss_of(
    encoder: Encoder, head: nn.Module, criterion: nn.Module, normalise: Normalise, batch: Batch, done: float
) -> tuple[Tensor, Tensor]:
    """The criterion of the projected views, and the embeddings float32 [2 B, E]."""
    embedding = embed(encoder, normalise, both(batch))
    first, second = head(embedding).float().chunk(2)
    value: Tensor = criterion(first, second)
    return value, embedding


def render(pixels: NDArray[np.uint8], rng: np.random.Generator, augmenter: Augmenter) -> Batch:
    """Two views of each image: `first` and `second`, uint8 [B, H, W, 3]."""
    return {"first": augmenter.view(pixels, rng), "second": augmenter.view(pixels, rng)}


def both(batch: Batch) -> Tensor:
    """All views, uint8 [2 B, H, W, 3]: one pass through the encoder is faster than two."""
    return torch.cat([batch["first"], batch["second"]])


def embed(encoder: Encoder, normalise: Normalise, pixels: Tensor) -> Tensor:
    """Embeddings float32 [N, E] of uint8 [N, H, W, 3]."""
    return encoder.pool_embedding(encoder.stages(normalise(pixels))).float()
