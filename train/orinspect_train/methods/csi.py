"""CSI (Tack et al. 2020, arXiv 2007.08176): SimCLR to which a turned copy is another image, and the name of the turn.

What is learnt of a thing this way is its shape, and how it differs from others of its kind. As with `rotation`, the images
must have an up and a down; so a view is never turned otherwise, nor mirrored upside down, whatever the policy permits.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from orinspect_train.augment import Augmenter
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Batch, Method, Normalise, Setting
from orinspect_train.methods.classes import classifier, naming_loss
from orinspect_train.methods.rotation import TURNS, turned_copies
from orinspect_train.methods.simclr import Options, contrast
from orinspect_train.methods.two_views import both, embed


class Heads(nn.Module):
    """projection: SimCLR's. turn: logits of the turns."""

    def __init__(self, projection: nn.Module, turn: nn.Module) -> None:
        super().__init__()
        self.projection, self.turn = projection, turn


def open_method(encoder: Encoder, setting: Setting, options: Options) -> Method:
    """The method for an encoder, with SimCLR's options; over several devices the terms are those of all
    their images together."""
    projection, criterion = contrast(encoder, setting, options)
    heads = Heads(projection, classifier(encoder.embedding_dim, options.hidden_dim, TURNS))
    loss = partial(loss_of, encoder, heads, criterion)
    return Method(partial(render, augmenter=upright(setting.augmenter)), heads, loss)


def upright(augmenter: Augmenter) -> Augmenter:
    """The same without what would leave a turn without a name."""
    policy = dataclasses.replace(augmenter.policy, upside_down=False, quarter_turns=False, any_turn=False)
    return dataclasses.replace(augmenter, policy=policy)


def loss_of(
    encoder: Encoder, heads: Heads, criterion: nn.Module, normalise: Normalise, batch: Batch, done: float
) -> tuple[Tensor, Tensor]:
    """The contrast of all turned views plus the cross entropy of their turns; embeddings float32 [2 B turns, E]."""
    embedding = embed(encoder, normalise, both(batch).flatten(0, 1))
    first, second = heads.projection(embedding).float().chunk(2)
    return criterion(first, second) + naming_loss(heads.turn, embedding, TURNS), embedding


def render(pixels: NDArray[np.uint8], rng: np.random.Generator, augmenter: Augmenter) -> Batch:
    """Two views of each square image, each turned by 0 to 3 quarters: `first` and `second`, uint8 [B, 4, H, W, 3]."""
    return {name: turned_copies(augmenter.view(pixels, rng)) for name in ("first", "second")}
