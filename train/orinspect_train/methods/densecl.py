"""DenseCL (Wang et al. 2021, arXiv 2011.09157): MoCo v2 for the whole image, and for every patch.

A patch of one view is nearer to the patch of the other view that looks most like it than to patches of earlier images.
Patch features are what heat maps are made of, and no loss of pooled embeddings asks anything of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from lightly.models.modules.heads import DenseCLProjectionHead
from lightly.models.utils import select_most_similar
from torch import Tensor, nn

from orinspect_edge_runtime.schema import within
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Batch, Method, Normalise, Setting, moco_v2
from orinspect_train.methods.teacher import Teacher
from orinspect_train.methods.two_views import render


@dataclass(frozen=True)
class Options(moco_v2.Options):
    """Those of MoCo v2, for both losses. dense_weight: of the patches' loss, the rest is the images'."""

    dense_weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, {"dense_weight": (0, 1)})


class Heads(nn.Module):
    """One head and one queue for images and one for patches; the teacher of encoder and heads."""

    def __init__(self, encoder: Encoder, options: Options, devices: int) -> None:
        super().__init__()
        sizes = (options.hidden_dim, options.projection_dim)
        self.image, self.patch = (
            DenseCLProjectionHead(dim, *sizes) for dim in (encoder.embedding_dim, encoder.place_dim)
        )
        self.teacher = Teacher(encoder, self.image, self.patch)
        loss = partial(moco_v2.queued_loss, options.temperature, options.queue, options.projection_dim, devices)
        self.image_loss, self.patch_loss = loss(), loss()


def open_method(encoder: Encoder, setting: Setting, options: Options) -> Method:
    """The method for an encoder; over several devices the queues take the keys of all."""
    heads = Heads(encoder, options, setting.devices)
    return Method(partial(render, augmenter=setting.augmenter), heads, partial(loss_of, encoder, heads, options))


def loss_of(
    encoder: Encoder, heads: Heads, options: Options, normalise: Normalise, batch: Batch, done: float
) -> tuple[Tensor, Tensor]:
    """The weighted sum of both contrastive losses, and the embeddings float32 [B, E]."""
    heads.teacher.follow(encoder, heads.image, heads.patch, momentum=options.momentum)
    teacher_image, teacher_patch = heads.teacher.heads
    embedding, patches = _features(encoder, normalise, batch["first"])
    with torch.no_grad():
        other, other_patches = _features(heads.teacher.encoder, normalise, batch["second"])
        key, patch_keys = teacher_image(other).float(), teacher_patch(other_patches).float()
        matched = select_most_similar(patches, other_patches, patch_keys)
    queries = heads.patch(patches).float()
    of_images: Tensor = heads.image_loss(heads.image(embedding).float(), key)
    of_patches = heads.patch_loss(queries.flatten(0, 1), matched.flatten(0, 1))
    return (1 - options.dense_weight) * of_images + options.dense_weight * of_patches, embedding


def _features(encoder: Encoder, normalise: Normalise, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings float32 [B, E] and features of the places float32 [B, P, D]."""
    stages = encoder.stages(normalise(pixels))
    return encoder.pool_embedding(stages).float(), encoder.place_map(stages).float().flatten(2).transpose(1, 2)
