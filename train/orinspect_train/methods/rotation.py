"""RotNet (Gidaris et al. 2018, arXiv 1803.07728): by which quarter turns was an image turned?

For images with an up and a down (parts, garments): the answer lies in their shape. Where there is none, as on textures
and on square cells, there is nothing to learn, and the loss stays at ln 4 = 1.39.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.schema import within
from orinspect_train.augment import Augmenter
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Batch, Method, Setting
from orinspect_train.methods.classes import classifier, loss_of

TURNS = 4


@dataclass(frozen=True)
class Options:
    """hidden_dim: of the head."""

    hidden_dim: int = 512

    def __post_init__(self) -> None:
        within(self, {"hidden_dim": (1, 65536)})


def open_method(encoder: Encoder, setting: Setting, options: Options) -> Method:
    """The method for an encoder."""
    head = classifier(encoder.embedding_dim, options.hidden_dim, TURNS)
    return Method(partial(render, augmenter=setting.augmenter), head, partial(loss_of, encoder, head))


def render(pixels: NDArray[np.uint8], rng: np.random.Generator, augmenter: Augmenter) -> Batch:
    """`images` uint8 [B, 4, H, W, 3]: each square image jittered, and turned by 0 to 3 quarters; never mirrored."""
    return {"images": turned_copies(augmenter.jitter(pixels, rng))}


def turned_copies(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each of the square images [B, H, W, 3] turned by 0 to 3 quarters, uint8 [B, 4, H, W, 3]."""
    return np.stack([np.rot90(pixels, turns, (1, 2)) for turns in range(TURNS)], axis=1)
