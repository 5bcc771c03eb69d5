"""CutPaste, 3-way (Li et al. 2021, arXiv 2104.04015): is an image whole, has it a pasted patch, or a pasted scar.

Patch and scar are cut from the image itself, their colours jittered, a scar turned. Numbers are the paper's, for which
images have 256 pixels a side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orinspect_edge_runtime.schema import within
from orinspect_train.augment import Augmenter, flip
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Batch, Method, Setting
from orinspect_train.methods.classes import classifier, loss_of

Pixels = NDArray[np.uint8]
Rng = np.random.Generator

CLASSES = 3
# Share of the image's area, and short side by long side.
PATCH_AREA, PATCH_ASPECT = (0.02, 0.15), (0.3, 1.0)
# As shares of the image's side; degrees.
SCAR_WIDTH, SCAR_LENGTH, SCAR_ANGLE = (2 / 256, 16 / 256), (10 / 256, 25 / 256), 45.0
LEAST_SIDE = 2


@dataclass(frozen=True)
class Options:
    """colour_jitter: largest relative change of a patch's brightness and contrast. hidden_dim: of the head."""

    colour_jitter: float = 0.1
    hidden_dim: int = 128

    def __post_init__(self) -> None:
        within(self, {"colour_jitter": (0, 1), "hidden_dim": (1, 65536)})


def open_method(encoder: Encoder, setting: Setting, options: Options) -> Method:
    """The method for an encoder."""
    head = classifier(encoder.embedding_dim, options.hidden_dim, CLASSES)
    rendering = partial(render, augmenter=setting.augmenter, colour_jitter=options.colour_jitter)
    return Method(rendering, head, partial(loss_of, encoder, head))


def render(pixels: Pixels, rng: Rng, augmenter: Augmenter, colour_jitter: float) -> Batch:
    """`images` uint8 [B, 3, H, W, 3]: each image flipped and jittered, then as it is, with a patch, with a scar."""
    images = [flip(image, choice) for image, choice in zip(pixels, augmenter.flips(len(pixels), rng), strict=True)]
    whole = augmenter.jitter(np.stack(images).astype(np.uint8), rng)
    variants = [
        np.stack([image, paste_patch(image, rng, colour_jitter), paste_scar(image, rng, colour_jitter)])
        for image in whole
    ]
    return {"images": np.stack(variants)}


def paste_patch(image: Pixels, rng: Rng, colour_jitter: float) -> Pixels:
    """A copy of uint8 [H, W, 3] with a rectangle of it in another place."""
    height, width = image.shape[:2]
    area, aspect = rng.uniform(*PATCH_AREA) * height * width, rng.uniform(*PATCH_ASPECT)
    sides = np.array([np.sqrt(area * aspect), np.sqrt(area / aspect)])[:: rng.choice([-1, 1])]
    tall, wide = np.clip(np.rint(sides), LEAST_SIDE, (height - 1, width - 1)).astype(int)
    piece = _jittered(_cut(image, tall, wide, rng), rng, colour_jitter)
    return _paste(image, Image.fromarray(piece), None, rng)


def paste_scar(image: Pixels, rng: Rng, colour_jitter: float) -> Pixels:
    """A copy of uint8 [H, W, 3] with a thin, turned rectangle of it in another place."""
    side = min(image.shape[:2])
    wide, tall = (max(LEAST_SIDE, round(side * rng.uniform(*span))) for span in (SCAR_WIDTH, SCAR_LENGTH))
    piece = Image.fromarray(_jittered(_cut(image, tall, wide, rng), rng, colour_jitter))
    angle = rng.uniform(-SCAR_ANGLE, SCAR_ANGLE)
    turned = piece.rotate(angle, expand=True, resample=Image.Resampling.BILINEAR)
    mask = Image.new("L", piece.size, 255).rotate(angle, expand=True)
    return _paste(image, turned, mask, rng)


def _cut(image: Pixels, tall: int, wide: int, rng: Rng) -> Pixels:
    top, left = (int(rng.integers(0, side - piece + 1)) for side, piece in zip(image.shape, (tall, wide), strict=False))
    return image[top : top + tall, left : left + wide]


def _paste(image: Pixels, piece: Image.Image, mask: Image.Image | None, rng: Rng) -> Pixels:
    height, width = image.shape[:2]
    left, top = (int(rng.integers(0, max(1, n - p + 1))) for n, p in zip((width, height), piece.size, strict=True))
    canvas = Image.fromarray(image)
    canvas.paste(piece, (left, top), mask)
    return np.array(canvas)


def _jittered(piece: Pixels, rng: Rng, spread: float) -> Pixels:
    gain, shift = rng.uniform(1 - spread, 1 + spread, 2)
    centre = piece.mean()
    return np.asarray(np.clip(np.rint((piece - centre) * gain + centre * shift), 0, 255), np.uint8)
