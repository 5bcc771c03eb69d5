"""VICReg (Bardes et al. 2022, arXiv 2105.04906): two views agree, every dimension varies, no two say the same.

It needs no defects and no negatives. Its variance and covariance terms are what keeps a small encoder from collapse.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from lightly.loss import VICRegLoss
from lightly.models.modules import BarlowTwinsProjectionHead
from numpy.typing import NDArray
from torch import Tensor, nn

from orinspect_train.augment import view
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Batch, Method

PROJECTION_DIM = 1024


def open_method(encoder: Encoder, gray: bool, devices: int) -> Method:
    """The method for an encoder; over several devices the terms are those of all their images together."""
    # VICReg's expander is the three-layer projector of Barlow Twins.
    head = BarlowTwinsProjectionHead(encoder.embedding_dim, PROJECTION_DIM, PROJECTION_DIM)
    criterion = VICRegLoss(gather_distributed=devices > 1)
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
