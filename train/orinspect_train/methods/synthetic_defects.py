"""Tell drawn defects from clean images, in the image and in every patch.

The family of CutPaste (Li et al. 2021, arXiv 2104.04015), NSA (Schlüter et al. 2022, arXiv 2109.15222) and DRAEM
(Zavrtanik et al. 2021, arXiv 2108.07610), with defects that resemble those of parts (cracks, spots, strips, pasted
pieces). The heads are dropped: scored by them, real defects were found less often than by the distance to good images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from orinspect_edge_runtime.schema import within
from orinspect_train.augment import Augmenter, flip
from orinspect_train.defects import draw_defect, patch_labels
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Batch, Method, Normalise, Setting


@dataclass(frozen=True)
class Options:
    """patch_weight: of the patches' loss against the images'. positive_weight: of defective patches, which are few."""

    patch_weight: float = 1.0
    positive_weight: float = 4.0

    def __post_init__(self) -> None:
        within(self, {"patch_weight": (0, 1000), "positive_weight": (0.01, 1000)})


class Heads(nn.Module):
    """One linear map of the embedding to an image logit, one of the features of each place to a patch logit.

    Nothing normalises in front: with a layer norm there, adapted encoders found fewer real defects.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.image = nn.Linear(encoder.embedding_dim, 1)
        self.patch = nn.Linear(encoder.place_dim, 1)

    def forward(self, embedding: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B] and [B, P]."""
        return self.image(embedding).squeeze(1), self.patch(patches).squeeze(2)


def open_method(encoder: Encoder, setting: Setting, options: Options) -> Method:
    """The method for an encoder and square images of `setting.size` pixels."""
    heads = Heads(encoder)
    grid = encoder.place_grid(setting.size)
    return Method(
        partial(render, grid=grid, augmenter=setting.augmenter), heads, partial(loss_of, encoder, heads, options)
    )


def loss_of(
    encoder: Encoder, heads: Heads, options: Options, normalise: Normalise, batch: Batch, done: float
) -> tuple[Tensor, Tensor]:
    """Binary cross entropy of the images plus that of the patches, and the embeddings float32 [B, E]."""
    stages = encoder.stages(normalise(batch["images"]))
    embedding, patches = encoder.pool_embedding(stages).float(), encoder.place_map(stages).float()
    image, patch = heads(embedding, patches.flatten(2).transpose(1, 2))
    weight = torch.tensor(options.positive_weight, device=patch.device)
    of_images = functional.binary_cross_entropy_with_logits(image.float(), batch["defective"])
    of_patches = functional.binary_cross_entropy_with_logits(patch.float(), batch["patches"], pos_weight=weight)
    return of_images + options.patch_weight * of_patches, embedding


def render(pixels: NDArray[np.uint8], rng: np.random.Generator, grid: tuple[int, int], augmenter: Augmenter) -> Batch:
    """Draw a defect on the first half of the images, then flip and jitter all of them.

    Gives `images` uint8 [B, H, W, 3], `defective` float32 [B] and `patches` float32 [B, rows * columns].
    """
    batch, height, width = pixels.shape[:3]
    images, masks = np.empty_like(pixels), np.zeros((batch, height, width), np.bool_)
    for index, choice in enumerate(augmenter.flips(batch, rng)):
        image, mask = pixels[index], masks[index]
        if index < batch // 2:
            image, mask = draw_defect(image, pixels[(index + 1) % batch], rng)
        images[index], masks[index] = flip(image, choice), flip(mask, choice)
    labels = patch_labels(masks, *grid).reshape(batch, -1)
    return {"images": augmenter.jitter(images, rng), "defective": labels.max(axis=1), "patches": labels}
