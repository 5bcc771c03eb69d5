"""Pretraining methods: one paper, one file, its options inside. METHOD_NAMES of config.py are the names of the files."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import ConfigError
from orinspect_edge_runtime.schema import fill
from orinspect_train.config import PretrainConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from orinspect_train.augment import Augmenter
    from orinspect_train.encoder import Encoder

Batch = dict[str, Any]
Render = Callable[[NDArray[np.uint8], np.random.Generator], Batch]
Normalise = Callable[["Tensor"], "Tensor"]
# Loss, and the embeddings [N, E] that the signs of collapse are read from.
Loss = Callable[[Normalise, Batch, float], tuple["Tensor", "Tensor"]]


@dataclass(frozen=True)
class Method:
    """What a method needs for one step.

    render: uint8 [B, H, W, 3] and a generator to a batch, a pure function (so a resumed run sees the same batches);
    its arrays are uint8 images [B, ..., H, W, 3] and float32 labels. heads: all modules beside the encoder that
    training changes, so what a checkpoint must hold: heads, teachers that follow, queues; dropped in the end. loss: of
    a function that normalises images, a batch of tensors, and the share of the training that is done, 0 to 1.
    """

    render: Render
    heads: nn.Module
    loss: Loss


@dataclass(frozen=True)
class Setting:
    """What a method is opened for. size: side of the frames, pixels. devices: that train together."""

    size: int
    augmenter: Augmenter
    devices: int = 1


class MethodFile(Protocol):
    """What a file of a method defines. Options: a frozen dataclass with a default for everything."""

    Options: type[Any]

    def open_method(self, encoder: Encoder, setting: Setting, options: Any) -> Method:
        """The method for an encoder; over several devices its terms are those of all their images together."""


def open_method(config: PretrainConfig, encoder: Encoder, augmenter: Augmenter, devices: int) -> Method:
    """The configured method. Raises ConfigError for options it does not have."""
    found = _file(config.method)
    return found.open_method(encoder, Setting(config.size, augmenter, devices), _options(config))


def complete(config: PretrainConfig) -> PretrainConfig:
    """The same with all that depends on something else filled in, every option of the method written out.

    Raises ConfigError naming the table for an unknown option, a wrong type, or a value out of range.
    """
    return dataclasses.replace(config.resolved(), options=dataclasses.asdict(_options(config)))


def _options(config: PretrainConfig) -> Any:
    try:
        return fill(_file(config.method).Options, config.options)
    except ConfigError as error:
        raise ConfigError(f"[{config.method}] {error}") from error


def _file(name: str) -> MethodFile:
    return cast(MethodFile, importlib.import_module(f"{__name__}.{name}"))
