"""SimMIM (Xie et al. 2022, arXiv 2111.09886): paint over most of an image and predict its pixels from the deepest features.

Works for convolutional encoders and transformers alike (`mae` needs a transformer, which can leave patches out). Weak when
the encoder is used as it is, strong before a fine-tuning with labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from orinspect_edge_runtime.errors import ConfigError
from orinspect_edge_runtime.schema import within
from orinspect_train.augment import Augmenter
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Batch, Method, Normalise, Setting


@dataclass(frozen=True)
class Options:
    """masked: share of the cells that is painted over. cells: a side of the image, which they must divide."""

    masked: float = 0.6
    cells: int = 8

    def __post_init__(self) -> None:
        within(self, {"masked": (0.05, 0.95), "cells": (2, 64)})


class Heads(nn.Module):
    """What masked pixels are painted with, and one linear map of each deep feature to the pixels of its place."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        layer = encoder.embedding_layer
        stride = encoder.reductions[layer]
        self.paint = nn.Parameter(torch.zeros(3))
        self.decoder = nn.Sequential(
            nn.Conv2d(encoder.channels[layer], 3 * stride**2, 1),
            nn.PixelShuffle(stride),
        )


def open_method(encoder: Encoder, setting: Setting, options: Options) -> Method:
    """The method for an encoder. Raises ConfigError for cells that do not divide the image."""
    if setting.size % options.cells:
        raise ConfigError(f"[simmim] cells is {options.cells}: it must divide the size of {setting.size} pixels")
    heads = Heads(encoder)
    rendering = partial(render, augmenter=setting.augmenter, masked=options.masked, cells=options.cells)
    return Method(rendering, heads, partial(loss_of, encoder, heads))


def loss_of(encoder: Encoder, heads: Heads, normalise: Normalise, batch: Batch, done: float) -> tuple[Tensor, Tensor]:
    """Mean absolute error of the painted pixels, normalised, and the embeddings float32 [B, E]."""
    images = normalise(batch["images"])
    factor = images.shape[2] // batch["mask"].shape[1]
    mask = batch["mask"].repeat_interleave(factor, 1).repeat_interleave(factor, 2).unsqueeze(1)
    stages = encoder.stages(torch.lerp(images, heads.paint.view(1, 3, 1, 1).expand_as(images), mask))
    predicted = heads.decoder(stages[encoder.embedding_layer]).float()
    error = functional.l1_loss(predicted, images, reduction="none") * mask
    return error.sum() / (mask.sum() * images.shape[1]), encoder.pool_embedding(stages).float()


def render(
    pixels: NDArray[np.uint8], rng: np.random.Generator, augmenter: Augmenter, masked: float, cells: int
) -> Batch:
    """A view of each image, `images` uint8 [B, H, W, 3], and `mask` float32 [B, cells, cells], 1 where it is hidden.

    Of every image the same number of cells is hidden, and at least one is and one is not.
    """
    count = cells**2
    hidden = min(max(1, round(masked * count)), count - 1)
    order = rng.permuted(np.tile(np.arange(count), (len(pixels), 1)), axis=1)
    mask = (order < hidden).astype(np.float32).reshape(-1, cells, cells)
    return {"images": augmenter.view(pixels, rng), "mask": mask}
