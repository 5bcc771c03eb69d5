"""VICReg (Bardes et al. 2022, arXiv 2105.04906): two views agree, every dimension varies, no two say the same.

It needs no defects and no negatives. Its variance and covariance terms are what keeps a small encoder from collapse.
"""

from __future__ import annotations

from lightly.loss import VICRegLoss
from lightly.models.modules import BarlowTwinsProjectionHead

from orinspect_train.encoder import Encoder
from orinspect_train.methods import Method
from orinspect_train.methods.two_views import open_two_views

PROJECTION_DIM = 1024


def open_method(encoder: Encoder, gray: bool, devices: int) -> Method:
    """The method for an encoder; over several devices the terms are those of all their images together."""
    # VICReg's expander is the three-layer projector of Barlow Twins.
    head = BarlowTwinsProjectionHead(encoder.embedding_dim, PROJECTION_DIM, PROJECTION_DIM)
    return open_two_views(encoder, head, VICRegLoss(gather_distributed=devices > 1), gray)
