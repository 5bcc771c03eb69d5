"""MAE (He et al. 2021, arXiv 2111.06377): encode the few patches that are left, and predict the pixels of all others.

For vision transformers, which can leave patches out: a step costs a quarter of one that sees the whole image. For other
encoders there is `simmim`. Weak when the encoder is used as it is, strong before a fine-tuning with labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightly.models.modules import MaskedVisionTransformerTIMM
from lightly.models.modules.masked_vision_transformer_decoder_timm import MaskedVisionTransformerDecoderTIMM
from lightly.models.utils import get_at_index, patchify, set_at_index
from timm.models import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from orinspect_edge_runtime.errors import ConfigError
from orinspect_edge_runtime.schema import within
from orinspect_train.encoder import Encoder, pool
from orinspect_train.methods import Batch, Method, Normalise, Setting
from orinspect_train.methods.simmim import render

# Dimensions a head of the decoder's attention, and the least variance that a patch's pixels are divided by.
HEAD_DIM, LEAST_VARIANCE = 32, 1e-6


@dataclass(frozen=True)
class Options:
    """masked: share of the patches that is left out. decoder_dim (a multiple of 32), decoder_depth: of the transformer
    that predicts them, which is dropped in the end."""

    masked: float = 0.75
    decoder_dim: int = 128
    decoder_depth: int = 2

    def __post_init__(self) -> None:
        within(self, {"masked": (0.05, 0.95), "decoder_dim": (HEAD_DIM, 4096), "decoder_depth": (1, 24)})
        if self.decoder_dim % HEAD_DIM:
            raise ConfigError(f"decoder_dim is {self.decoder_dim}: it must be a multiple of {HEAD_DIM}")


class Heads(nn.Module):
    """The decoder between two linear maps: from the encoder's tokens, and to the pixels of a patch."""

    def __init__(self, vit: Any, options: Options) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.LayerNorm(vit.embed_dim), nn.Linear(vit.embed_dim, options.decoder_dim))
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=vit.patch_embed.num_patches,
            embed_dim=options.decoder_dim,
            depth=options.decoder_depth,
            num_heads=options.decoder_dim // HEAD_DIM,
            num_prefix_tokens=vit.num_prefix_tokens,
        )
        self.predict = nn.Linear(options.decoder_dim, 3 * vit.patch_embed.patch_size[0] ** 2)

    def forward(self, tokens: Tensor, kept: Tensor, left_out: Tensor) -> Tensor:
        """Pixels float [B, M, 3 p p] of the tokens at `left_out` [B, M], of the encoder's [B, K, C] at `kept` [B, K]."""
        entered = self.enter(tokens).float()
        canvas = self.decoder.mask_token.float().expand(len(tokens), self.decoder.sequence_length, -1)
        decoded = self.decoder(set_at_index(canvas, kept, entered))
        found: Tensor = self.predict(get_at_index(decoded, left_out)).float()
        return found


def open_method(encoder: Encoder, setting: Setting, options: Options) -> Method:
    """The method for an encoder. Raises ConfigError for one that is no vision transformer."""
    vit = getattr(encoder.trunk, "model", None)
    # Those derived from it have further tokens or another order of steps, which lightly does not know of.
    if type(vit) is not VisionTransformer:
        raise ConfigError(
            f"mae needs a vision transformer such as vit_tiny_patch16_224; for {encoder.name!r} use simmim"
        )
    heads = Heads(vit, options)
    masked = MaskedVisionTransformerTIMM(vit, weight_initialization="skip", pos_embed_initialization="skip")
    cells = setting.size // encoder.stride
    rendering = partial(render, augmenter=setting.augmenter, masked=options.masked, cells=cells)
    return Method(rendering, heads, partial(loss_of, masked, heads))


def loss_of(
    masked: MaskedVisionTransformerTIMM, heads: Heads, normalise: Normalise, batch: Batch, done: float
) -> tuple[Tensor, Tensor]:
    """Mean squared error of the left-out patches, each with its own mean and variance taken out, and the embeddings
    float32 [B, E] of the patches that were kept."""
    images, mask = normalise(batch["images"]), batch["mask"].flatten(1)
    prefix, seen = masked.vit.num_prefix_tokens, int((mask[0] == 0).sum())
    # Those that are kept come first, in their order.
    order = mask.argsort(dim=1, stable=True)
    first = torch.arange(prefix, device=order.device).expand(len(order), -1)
    kept = torch.cat([first, order[:, :seen] + prefix], 1)
    tokens = masked.encode(images, idx_keep=kept)
    predicted = heads(tokens, kept, order[:, seen:] + prefix)
    wanted = get_at_index(patchify(images, masked.vit.patch_embed.patch_size[0]), order[:, seen:])
    centred = wanted - wanted.mean(2, keepdim=True)
    target = centred / (centred.square().mean(2, keepdim=True) + LEAST_VARIANCE).sqrt()
    return functional.mse_loss(predicted, target), pool(tokens[:, prefix:].transpose(1, 2)).float()
