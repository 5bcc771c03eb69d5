"""The encoder: a timm trunk that gives one embedding an image and one feature a patch. Training and export share it."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.layers import set_fused_attn
from torch import Tensor, nn
from torch.nn import functional

from orinspect_edge_runtime.errors import ConfigError
from orinspect_train.tiny import SMALL, TINY, TinyResNet

# Beside timm's: widths of a TinyResNet.
OWN_ENCODERS = {"tiny_resnet": TINY, "small_resnet": SMALL}
# Patches come from the stages of these strides, the embedding from the deepest stage.
PATCH_STRIDES = (8, 16)
# Keeps the gradient of the standard deviation finite where a channel is constant; far below any feature's variance.
VARIANCE_FLOOR = 1e-6


class Encoder(nn.Module):
    """Embedding and patch features of normalised images.

    name: of a timm model that gives feature stages, or of OWN_ENCODERS. size: side of the square images, pixels; only
    a transformer with learned positions depends on it. layers: the stages the patches are made of, shallow to deep;
    without them those of PATCH_STRIDES, which for a transformer are its last blocks but one. The deepest stage is
    pooled into the embedding.
    Raises ConfigError when timm has no such model, or it has no such stage.
    """

    def __init__(self, name: str, size: int, layers: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.name, self.size = name, size
        self.has_fixed_size = _has_fixed_size(name)
        self.trunk = _open_trunk(name, size)
        self.reductions: tuple[int, ...] = tuple(self.trunk.feature_info.reduction())
        self.channels: tuple[int, ...] = tuple(self.trunk.feature_info.channels())
        self.embedding_layer = len(self.reductions) - 1
        self.layers = tuple(layers) if layers else self._patch_layers()
        # Of the shallow stages, see freeze_stages.
        self.frozen_stages = 0
        if not set(self.layers) <= set(range(self.embedding_layer + 1)):
            raise ConfigError(
                f"the encoder {name!r} has {len(self.reductions)} feature stages, numbered from 0; {self.layers} are not"
            )

    @property
    def patch_dim(self) -> int:
        """Length D of a patch feature."""
        return sum(self.channels[layer] for layer in self.layers)

    @property
    def embedding_dim(self) -> int:
        """Length E of the embedding: mean, maximum and standard deviation of the embedding layer's channels."""
        return 3 * self.channels[self.embedding_layer]

    @property
    def patch_stages(self) -> int:
        """Number of stages up to the deepest that patches are made of: while they are frozen, no patch feature changes."""
        return self.layers[-1] + 1

    @property
    def learns_patches(self) -> bool:
        """Whether training may change patch features; else it changes the embedding alone."""
        return self.frozen_stages < self.patch_stages

    @property
    def stride(self) -> int:
        """Pixels a side of one patch: the stride of the deepest layer of the patches."""
        return self.reductions[self.layers[-1]]

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches for an image of that size, pixels."""
        return height // self.stride, width // self.stride

    def sized(self, images: Tensor) -> Tensor:
        """Normalised [B, 3, h, w] at a size the trunk takes: any multiple of its deepest stride, or its own size."""
        sides = (
            [self.size] * 2
            if self.has_fixed_size
            else [-(-n // self.reductions[-1]) * self.reductions[-1] for n in images.shape[2:]]
        )
        return (
            images
            if list(images.shape[2:]) == sides
            else functional.interpolate(images, sides, mode="bilinear", antialias=True)
        )

    def stages(self, images: Tensor) -> list[Tensor]:
        """Feature maps of every stage, [B, C_i, H/stride_i, W/stride_i], of normalised float [B, 3, H, W]."""
        maps: list[Tensor] = self.trunk(images)
        return maps

    def pool_embedding(self, stages: list[Tensor]) -> Tensor:
        """float [B, E] of the embedding layer; see `pool`."""
        return pool(stages[self.embedding_layer].flatten(2))

    def patch_map(self, stages: list[Tensor]) -> Tensor:
        """float [B, D, rows, columns]: the layers of the patches on the grid of the deepest, by averaging.

        Each patch is then the mean of its 3x3 neighbourhood (Roth et al. 2022, section 3.1).
        """
        maps = [self._to_grid(stages[layer], layer) for layer in self.layers]
        return functional.avg_pool2d(torch.cat(maps, 1), 3, stride=1, padding=1, count_include_pad=False)

    def place_map(self, stages: list[Tensor]) -> Tensor:
        """float [B, place_dim, *place_grid]: what a loss of places acts on. The patches, or, while these are frozen, the
        map that the embedding is pooled from."""
        return self.patch_map(stages) if self.learns_patches else stages[self.embedding_layer]

    @property
    def place_dim(self) -> int:
        """Channels of `place_map`."""
        return self.patch_dim if self.learns_patches else self.channels[self.embedding_layer]

    def place_grid(self, size: int) -> tuple[int, int]:
        """Rows and columns of `place_map` for square images of that size, pixels."""
        side = size // (self.stride if self.learns_patches else self.reductions[self.embedding_layer])
        return side, side

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding [B, E] and patches [B, rows * columns, D], row by row, of normalised float [B, 3, H, W]."""
        stages = self.stages(images)
        return self.pool_embedding(stages), self.patch_map(stages).flatten(2).transpose(1, 2)

    def _patch_layers(self) -> tuple[int, ...]:
        layers = tuple(i for i, stride in enumerate(self.reductions[:-1]) if stride in PATCH_STRIDES)
        if not layers:
            raise ConfigError(
                f"the encoder {self.name!r} has no feature stage of stride 8 or 16; use tf_efficientnet_lite0"
            )
        return layers

    def _to_grid(self, stage: Tensor, layer: int) -> Tensor:
        factor = self.stride // self.reductions[layer]
        return stage if factor == 1 else functional.avg_pool2d(stage, factor)


def pool(places: Tensor) -> Tensor:
    """Mean, maximum and standard deviation over the places, float [B, 3 C] of [B, C, places]."""
    mean = places.mean(2)
    variance = (places - mean.unsqueeze(2)).square().mean(2)
    return torch.cat([mean, places.amax(2), (variance + VARIANCE_FLOOR).sqrt()], 1)


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, for pixels in 0..1, that timm states for a model."""
    stated: Any = timm.get_pretrained_cfg(name)
    if stated is None:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    return tuple(map(float, stated.mean)), tuple(map(float, stated.std))


def freeze_stages(encoder: Encoder, count: int) -> None:
    """Stop training everything up to and including the `count` shallowest feature stages (0: train all)."""
    encoder.frozen_stages = count
    if count == 0:
        return
    last = str(encoder.trunk.feature_info.module_name()[count - 1])
    prefixes = (last + ".", last.replace(".", "_") + ".")
    parameters = list(encoder.trunk.named_parameters())
    ends = [index for index, (name, _) in enumerate(parameters) if name.startswith(prefixes)]
    # timm lists parameters in the order of the forward pass; a stage without any (an activation) ends where it starts.
    for _, parameter in parameters[: (ends[-1] + 1 if ends else 0)]:
        parameter.requires_grad_(False)


def _open_trunk(name: str, size: int) -> Any:
    if name in OWN_ENCODERS:
        return TinyResNet(OWN_ENCODERS[name])
    if name not in timm.list_models():
        raise ConfigError(f"timm has no encoder {name!r}{_nearest(name)}")
    # Fused attention has no ONNX form; trunks with attention must train as they will be exported.
    set_fused_attn(False)
    sized = {"img_size": size} if _has_fixed_size(name) else {}
    try:
        return timm.create_model(name, pretrained=False, features_only=True, **sized)
    except (RuntimeError, AttributeError, TypeError, NotImplementedError, AssertionError) as error:
        raise ConfigError(
            f"the encoder {name!r} gives no feature stages ({error}); use tf_efficientnet_lite0"
        ) from error


def _has_fixed_size(name: str) -> bool:
    """Whether the model has learned positions, for images of one size."""
    stated: Any = timm.get_pretrained_cfg(name)
    return stated is not None and bool(stated.fixed_input_size)


def _nearest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, [*OWN_ENCODERS, *timm.list_models()], 1)
    return f": did you mean {near[0]!r}?" if near else ""
