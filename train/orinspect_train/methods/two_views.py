"""Two views of every image and a criterion of their projections: what the joint-embedding methods share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from orinspect_train.augment import view
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Batch, Method


def open_two_views(encoder: Encoder, head: nn.Module, criterion: nn.Module, gray: bool) -> Method:
    """The method that minimises `criterion` of two batches of projections [B, D]."""
    return Method(partial(render, gray=gray), head, partial(loss_of, encoder, head, criterion))


def loss_of(
    encoder: Encoder, head: nn.Module, criterion: nn.Module, normalise: Callable[[Tensor], Tensor], batch: Batch
) -> tuple[Tensor, Tensor]:
    """The criterion of the projected views, and the embeddings float32 [2 B, E]."""
    pairs = torch.cat([batch["first"], batch["second"]])
    embedding = encoder.pool_embedding(encoder.stages(normalise(pairs))).float()
    first, second = head(embedding).float().chunk(2)
    value: Tensor = criterion(first, second)
    return value, embedding


def render(pixels: NDArray[np.uint8], rng: np.random.Generator, gray: bool) -> Batch:
    """Two views of each image: `first` and `second`, uint8 [B, H, W, 3]."""
    return {"first": view(pixels, rng, gray=gray), "second": view(pixels, rng, gray=gray)}
