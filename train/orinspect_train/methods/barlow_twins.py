"""Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230): the cross-correlation of two views is the identity.

No negatives; the terms off the diagonal keep the dimensions from saying the same.
"""

from __future__ import annotations

from lightly.loss import BarlowTwinsLoss
from lightly.models.modules import BarlowTwinsProjectionHead

from orinspect_train.encoder import Encoder
from orinspect_train.methods import Method
from orinspect_train.methods.two_views import open_two_views

PROJECTION_DIM = 1024
# Weight of the terms off the diagonal.
REDUNDANCY_WEIGHT = 5e-3


def open_method(encoder: Encoder, gray: bool, devices: int) -> Method:
    """The method for an encoder; over several devices the terms are those of all their images together."""
    head = BarlowTwinsProjectionHead(encoder.embedding_dim, PROJECTION_DIM, PROJECTION_DIM)
    criterion = BarlowTwinsLoss(lambda_param=REDUNDANCY_WEIGHT, gather_distributed=devices > 1)
    return open_two_views(encoder, head, criterion, gray)
