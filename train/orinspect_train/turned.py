"""An encoder that looks at an image four times, turned by quarters (test-time augmentation, for the embedding alone).

What `rotation` has learnt of a thing shows when it lies otherwise too: an embedding of all four turns tells other things
better than the upright one. It costs four passes of the encoder an image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orinspect_train.encoder import Encoder
from orinspect_train.methods.rotation import TURNS


class TurnedEncoder(nn.Module):
    """Features as of `Encoder`, but the embedding is that of the image and of its quarter turns, one behind the other.

    side: of the square images, pixels.
    """

    reversed: Tensor

    def __init__(self, encoder: Encoder, side: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("reversed", torch.arange(side).flip(0), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding [B, 4 E] and the patches of the upright image [B, rows * columns, D] of float [B, 3, S, S]."""
        stages = self.encoder.stages(torch.cat(self._turns(images)))
        embedding = torch.unflatten(self.encoder.pool_embedding(stages), 0, (TURNS, -1)).transpose(0, 1).flatten(1)
        upright = [torch.unflatten(stage, 0, (TURNS, -1))[:1].flatten(0, 1) for stage in stages]
        return embedding, self.encoder.patch_map(upright).flatten(2).transpose(1, 2)

    def _turns(self, images: Tensor) -> list[Tensor]:
        """The images turned by 0 to 3 quarters, anticlockwise; mirrored by Gather, which every TensorRT takes."""
        across = images.transpose(2, 3)
        return [
            images,
            across.index_select(2, self.reversed),
            images.index_select(2, self.reversed).index_select(3, self.reversed),
            across.index_select(3, self.reversed),
        ]
