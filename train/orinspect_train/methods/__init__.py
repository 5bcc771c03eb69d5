"""Pretraining methods: one file a paper. The table names them for the configuration and the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn

    from orinspect_train.encoder import Encoder

Batch = dict[str, Any]
Render = Callable[[NDArray[np.uint8], np.random.Generator], Batch]
# Loss, and the embeddings [B, E] that the signs of collapse are read from.
Loss = Callable[[Callable[["Tensor"], "Tensor"], Batch], tuple["Tensor", "Tensor"]]


@dataclass(frozen=True)
class Method:
    """What a method needs for one step.

    render: uint8 [B, H, W, 3] and a generator to a batch, a pure function (so a resumed run sees the same batches);
    its arrays are uint8 images [B, H, W, 3] and float32 labels. heads: the modules dropped in the end. loss: of a
    function that normalises images, and a batch of tensors.
    """

    render: Render
    heads: nn.Module
    loss: Loss


def _open_synthetic_defects(encoder: Encoder, size: int, gray: bool, devices: int) -> Method:
    from orinspect_train.methods import synthetic_defects

    return synthetic_defects.open_method(encoder, size, gray)


def _open_vicreg(encoder: Encoder, size: int, gray: bool, devices: int) -> Method:
    from orinspect_train.methods import vicreg

    return vicreg.open_method(encoder, gray, devices)


def _open_simclr(encoder: Encoder, size: int, gray: bool, devices: int) -> Method:
    from orinspect_train.methods import simclr

    return simclr.open_method(encoder, gray, devices)


def _open_barlow_twins(encoder: Encoder, size: int, gray: bool, devices: int) -> Method:
    from orinspect_train.methods import barlow_twins

    return barlow_twins.open_method(encoder, gray, devices)


# Each opens a method for an encoder: (encoder, size in pixels, whether the images are gray, devices).
METHODS: dict[str, Callable[[Encoder, int, bool, int], Method]] = {
    "synthetic_defects": _open_synthetic_defects,
    "vicreg": _open_vicreg,
    "simclr": _open_simclr,
    "barlow_twins": _open_barlow_twins,
}
