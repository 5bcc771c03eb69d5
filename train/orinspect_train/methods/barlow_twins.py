"""Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230): the cross-correlation of two views is the identity.

No negatives; the terms off the diagonal keep the dimensions from saying the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lightly.loss import BarlowTwinsLoss
from lightly.models.modules import BarlowTwinsProjectionHead
from lightly.utils.dist import gather
from torch import Tensor, nn

from orinspect_edge_runtime.schema import within
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Method, Setting
from orinspect_train.methods.two_views import open_two_views


@dataclass(frozen=True)
class Options:
    """redundancy_weight: of the terms off the diagonal. projection_dim: of all three layers of the head."""

    redundancy_weight: float = 5e-3
    projection_dim: int = 1024

    def __post_init__(self) -> None:
        within(self, {"redundancy_weight": (0, 10), "projection_dim": (2, 65536)})


class OfAllDevices(nn.Module):
    """A criterion of the projections of all devices. lightly's own gathering normalises with those of one device."""

    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.criterion = criterion

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The same value on every device, of projections [B, D] on each."""
        value: Tensor = self.criterion(torch.cat(gather(first)), torch.cat(gather(second)))
        return value


def open_method(encoder: Encoder, setting: Setting, options: Options) -> Method:
    """The method for an encoder; over several devices the terms are those of all their images together."""
    head = BarlowTwinsProjectionHead(encoder.embedding_dim, options.projection_dim, options.projection_dim)
    criterion = BarlowTwinsLoss(lambda_param=options.redundancy_weight)
    shared = OfAllDevices(criterion) if setting.devices > 1 else criterion
    return open_two_views(encoder, head, shared, setting.augmenter)
