"""SimCLR (Chen et al. 2020, arXiv 2002.05709): two views of an image are nearer than views of other images.

Every other image of the batch is a negative, so images that look alike are pushed apart, and small batches say little.
"""

from __future__ import annotations

from dataclasses import dataclass

from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import nn

from orinspect_edge_runtime.schema import within
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Method, Setting
from orinspect_train.methods.two_views import open_two_views


@dataclass(frozen=True)
class Options:
    """temperature: of the softmax over all views. hidden_dim, projection_dim: of the head."""

    temperature: float = 0.1
    hidden_dim: int = 512
    projection_dim: int = 128

    def __post_init__(self) -> None:
        within(self, {"temperature": (0.01, 10), "hidden_dim": (1, 65536), "projection_dim": (2, 65536)})


def open_method(encoder: Encoder, setting: Setting, options: Options) -> Method:
    """The method for an encoder; over several devices the terms are those of all their images together."""
    head, criterion = contrast(encoder, setting, options)
    return open_two_views(encoder, head, criterion, setting.augmenter)


def contrast(encoder: Encoder, setting: Setting, options: Options) -> tuple[nn.Module, nn.Module]:
    """The projection head [N, E] to [N, projection_dim], and the criterion of two batches of projections."""
    head = SimCLRProjectionHead(encoder.embedding_dim, options.hidden_dim, options.projection_dim)
    return head, NTXentLoss(temperature=options.temperature, gather_distributed=setting.devices > 1)
