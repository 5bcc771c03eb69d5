"""MoCo v2 (Chen et al. 2020, arXiv 2003.04297): a view is nearer to its other view than to a queue of earlier images.

The other views and the queue come from a teacher that follows slowly; so there are many negatives in small batches.
The paper shuffles batches between GPUs to keep batch norm from giving the answer away: here batch norms see the images
of all devices, or do not change at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from torch import Tensor, nn

from orinspect_edge_runtime.schema import within
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Batch, Method, Normalise, Setting
from orinspect_train.methods.teacher import Teacher
from orinspect_train.methods.two_views import embed, render


@dataclass(frozen=True)
class Options:
    """temperature: of the softmax. momentum: share of itself that the teacher keeps in a step. queue: number of keys."""

    temperature: float = 0.2
    momentum: float = 0.99
    queue: int = 4096
    hidden_dim: int = 512
    projection_dim: int = 128

    def __post_init__(self) -> None:
        within(self, {"temperature": (0.01, 10), "momentum": (0, 1), "queue": (1, 1_000_000)})
        within(self, {"hidden_dim": (1, 65536), "projection_dim": (2, 65536)})


class Heads(nn.Module):
    """The head, the teacher of encoder and head, and the criterion, which holds the queue."""

    def __init__(self, encoder: Encoder, options: Options, devices: int) -> None:
        super().__init__()
        self.head = MoCoProjectionHead(encoder.embedding_dim, options.hidden_dim, options.projection_dim)
        self.teacher = Teacher(encoder, self.head)
        self.criterion = queued_loss(options.temperature, options.queue, options.projection_dim, devices)


def queued_loss(temperature: float, queue: int, dim: int, devices: int) -> NTXentLoss:
    """The contrastive loss against a queue that checkpoints hold (lightly's own is forgotten when a run is resumed)."""
    loss = NTXentLoss(temperature, memory_bank_size=(queue, dim), gather_distributed=devices > 1)
    bank = loss.memory_bank
    for name in ("bank", "bank_ptr"):
        bank.register_buffer(name, getattr(bank, name), persistent=True)
    return loss


def open_method(encoder: Encoder, setting: Setting, options: Options) -> Method:
    """The method for an encoder; over several devices the queue takes the keys of all."""
    heads = Heads(encoder, options, setting.devices)
    loss = partial(loss_of, encoder, heads, options.momentum)
    return Method(partial(render, augmenter=setting.augmenter), heads, loss)


def loss_of(
    encoder: Encoder, heads: Heads, momentum: float, normalise: Normalise, batch: Batch, done: float
) -> tuple[Tensor, Tensor]:
    """The contrastive loss of first views against the teacher's second ones, and the embeddings float32 [B, E]."""
    heads.teacher.follow(encoder, heads.head, momentum=momentum)
    (teacher_head,) = heads.teacher.heads
    embedding = embed(encoder, normalise, batch["first"])
    with torch.no_grad():
        keys = teacher_head(embed(heads.teacher.encoder, normalise, batch["second"])).float()
    value: Tensor = heads.criterion(heads.head(embedding).float(), keys)
    return value, embedding
