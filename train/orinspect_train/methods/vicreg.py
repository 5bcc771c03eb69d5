"""VICReg (Bardes et al. 2022, arXiv 2105.04906): two views agree, every dimension varies, no two say the same.

It needs no defects and no negatives. Its variance and covariance terms are what keeps a small encoder from collapse.
"""

from __future__ import annotations

from dataclasses import dataclass

from lightly.loss import VICRegLoss
from lightly.models.modules import BarlowTwinsProjectionHead

from orinspect_edge_runtime.schema import within
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Method, Setting
from orinspect_train.methods.two_views import open_two_views


@dataclass(frozen=True)
class Options:
    """invariance, variance, covariance: weights of the three terms. projection_dim: of all three layers of the head."""

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    projection_dim: int = 1024

    def __post_init__(self) -> None:
        weights = dict.fromkeys(("invariance", "variance", "covariance"), (0.0, 1000.0))
        within(self, {**weights, "projection_dim": (2, 65536)})


def open_method(encoder: Encoder, setting: Setting, options: Options) -> Method:
    """The method for an encoder; over several devices the terms are those of all their images together."""
    # VICReg's expander is the three-layer projector of Barlow Twins.
    head = BarlowTwinsProjectionHead(encoder.embedding_dim, options.projection_dim, options.projection_dim)
    criterion = VICRegLoss(
        lambda_param=options.invariance,
        mu_param=options.variance,
        nu_param=options.covariance,
        gather_distributed=setting.devices > 1,
    )
    return open_two_views(encoder, head, criterion, setting.augmenter)
