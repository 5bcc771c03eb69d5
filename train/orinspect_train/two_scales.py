"""An encoder that takes patches at two scales: at the size it was trained at, and at a larger one.

A patch of the larger image shows a smaller part of the thing, sharper. Both are joined on the grid of the smaller, where a
scorer of patches sees what is odd by either and by how they go together. The embedding is that of the smaller image, as it
was trained. It costs a second pass of the encoder, up to the deepest stage that patches are made of, at the larger size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from orinspect_train.encoder import Encoder

Size = tuple[int, int]


class Resample(nn.Module):
    """Float [B, C, *before] at the size `after`, pixels: linear, each output a mean over all that it covers.

    A product with one constant matrix along each axis, as ONNX has no antialiased resize before opset 18. The matrices stand
    on the left of both products: weights on the right would be taken for a layer to round to INT8.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, before: Size, after: Size) -> None:
        super().__init__()
        for name, *sides in zip(("rows", "columns"), before, after, strict=True):
            self.register_buffer(name, _along_one_axis(*sides), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        shrunk = torch.matmul(self.rows, images)
        return torch.matmul(self.columns, shrunk.transpose(2, 3)).transpose(2, 3)


class TwoScaleEncoder(nn.Module):
    """Features as of `Encoder`, but of larger images, and each patch is followed by that of the larger image.

    small, large: height and width, pixels, multiples of the encoder's deepest stride.
    """

    def __init__(self, encoder: Encoder, small: Size, large: Size) -> None:
        super().__init__()
        self.encoder = encoder
        self.shrink = Resample(large, small)
        self.join = Resample(encoder.grid(*large), encoder.grid(*small))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding [B, E] and patches [B, rows * columns, 2 D] of normalised float [B, 3, *large]."""
        embedding, patches = self.encoder(self.shrink(images))
        finer = self.join(self.encoder.patch_map(self.encoder.stages(images)))
        return embedding, torch.cat([patches, finer.flatten(2).transpose(1, 2)], 2)


def larger(size: Size, scale: float, stride: int) -> Size:
    """`scale` times a size, pixels, at the nearest multiples of `stride`."""
    height, width = (max(1, int(scale * side / stride + 0.5)) * stride for side in size)
    return height, width


def _along_one_axis(before: int, after: int) -> Tensor:
    """float [after, before], rows summing to 1."""
    every = torch.eye(before)[None, None]
    return functional.interpolate(every, (after, before), mode="bilinear", antialias=True)[0, 0]
