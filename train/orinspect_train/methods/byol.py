"""BYOL (Grill et al. 2020, arXiv 2006.07733): predict what a teacher that follows slowly makes of the other view.

No negatives. What keeps it from collapse is the predictor, the slow teacher and the batch norm in the heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from torch import Tensor, nn

from orinspect_edge_runtime.schema import within
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Batch, Method, Normalise, Setting
from orinspect_train.methods.teacher import Teacher, rising
from orinspect_train.methods.two_views import both, embed, render


@dataclass(frozen=True)
class Options:
    """momentum: share of itself that the teacher keeps in a step at first; it rises to 1. hidden_dim, projection_dim: of
    the projector and the predictor."""

    momentum: float = 0.99
    hidden_dim: int = 1024
    projection_dim: int = 256

    def __post_init__(self) -> None:
        within(self, {"momentum": (0, 1), "hidden_dim": (1, 65536), "projection_dim": (2, 65536)})


class Heads(nn.Module):
    """Projector, predictor, and the teacher of encoder and projector."""

    def __init__(self, encoder: Encoder, options: Options) -> None:
        super().__init__()
        self.projector = BYOLProjectionHead(encoder.embedding_dim, options.hidden_dim, options.projection_dim)
        self.predictor = BYOLPredictionHead(options.projection_dim, options.hidden_dim, options.projection_dim)
        self.teacher = Teacher(encoder, self.projector)


def open_method(encoder: Encoder, setting: Setting, options: Options) -> Method:
    """The method for an encoder."""
    heads = Heads(encoder, options)
    loss = partial(loss_of, encoder, heads, options.momentum, NegativeCosineSimilarity())
    return Method(partial(render, augmenter=setting.augmenter), heads, loss)


def loss_of(
    encoder: Encoder,
    heads: Heads,
    momentum: float,
    criterion: nn.Module,
    normalise: Normalise,
    batch: Batch,
    done: float,
) -> tuple[Tensor, Tensor]:
    """Mean negative cosine of predictions and the teacher's other views, and the embeddings float32 [2 B, E]."""
    heads.teacher.follow(encoder, heads.projector, momentum=rising(momentum, done))
    (teacher_projector,) = heads.teacher.heads
    views = both(batch)
    embedding = embed(encoder, normalise, views)
    predicted = heads.predictor(heads.projector(embedding)).float()
    with torch.no_grad():
        first, second = teacher_projector(embed(heads.teacher.encoder, normalise, views)).float().chunk(2)
    value: Tensor = criterion(predicted, torch.cat([second, first]))
    return value, embedding
