"""SimCLR (Chen et al. 2020, arXiv 2002.05709): two views of an image are nearer than views of other images.

Every other image of the batch is a negative, so images that look alike are pushed apart, and small batches say little.
"""

from __future__ import annotations

from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead

from orinspect_train.encoder import Encoder
from orinspect_train.methods import Method
from orinspect_train.methods.two_views import open_two_views

HIDDEN_DIM, PROJECTION_DIM = 512, 128
TEMPERATURE = 0.1


def open_method(encoder: Encoder, gray: bool, devices: int) -> Method:
    """The method for an encoder; over several devices the terms are those of all their images together."""
    head = SimCLRProjectionHead(encoder.embedding_dim, HIDDEN_DIM, PROJECTION_DIM)
    criterion = NTXentLoss(temperature=TEMPERATURE, gather_distributed=devices > 1)
    return open_two_views(encoder, head, criterion, gray)
