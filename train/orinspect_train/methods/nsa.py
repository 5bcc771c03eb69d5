"""NSA (Schlüter et al. 2022, arXiv 2109.15222): find the patches into which a piece of another image was blended.

Poisson blending (Pérez et al. 2003) keeps the piece's gradients and meets the image at the border, so no edge gives the
piece away; the label of a patch is how much it changed. As in the paper the size of a piece follows a gamma
distribution, the piece is resized, and labels saturate; unlike it, heads are those of `synthetic_defects`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orinspect_edge_runtime.schema import within
from orinspect_train.augment import Augmenter, flip
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Batch, Method, Setting, synthetic_defects

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Rng = np.random.Generator

# Share of a side that a piece takes: 0.06 + a gamma deviate of this shape and scale, and never more than MOST.
GAMMA_SHAPE, GAMMA_SCALE, LEAST, MOST = 2.0, 0.1, 0.06, 0.8
RESIZE = (0.7, 1.3)
MOST_PIECES = 4
# A piece that changes less than this many gray levels on average cannot be seen: another one is tried.
LEAST_CHANGE, ATTEMPTS = 2.0, 4


@dataclass(frozen=True)
class Options:
    """saturation: change in gray levels at which a label reaches one half. mixed: keep, pixel by pixel, the stronger
    gradient of piece and image. patch_weight, positive_weight: as of synthetic_defects."""

    saturation: float = 12.0
    mixed: bool = True
    patch_weight: float = 1.0
    positive_weight: float = 4.0

    def __post_init__(self) -> None:
        within(self, {"saturation": (0.1, 255), "patch_weight": (0, 1000), "positive_weight": (0.01, 1000)})


def open_method(encoder: Encoder, setting: Setting, options: Options) -> Method:
    """The method for an encoder and square images of `setting.size` pixels."""
    heads = synthetic_defects.Heads(encoder)
    weights = synthetic_defects.Options(options.patch_weight, options.positive_weight)
    grid = encoder.place_grid(setting.size)
    rendering = partial(render, grid=grid, augmenter=setting.augmenter, options=options)
    return Method(rendering, heads, partial(synthetic_defects.loss_of, encoder, heads, weights))


def render(pixels: Pixels, rng: Rng, grid: tuple[int, int], augmenter: Augmenter, options: Options) -> Batch:
    """Blend pieces of the next image into the first half of the images, then flip and jitter all of them.

    Gives `images` uint8 [B, H, W, 3], `defective` float32 [B] and `patches` float32 [B, rows * columns], in 0..1.
    """
    batch, height, width = pixels.shape[:3]
    images, changes = np.empty_like(pixels), np.zeros((batch, height, width), np.float32)
    for index, choice in enumerate(augmenter.flips(batch, rng)):
        image = pixels[index]
        if index < batch // 2:
            image = blend_pieces(image, pixels[(index + 1) % batch], rng, mixed=options.mixed)
            changes[index] = flip(np.abs(image.astype(np.float32) - pixels[index]).mean(2), choice)
        images[index] = flip(image, choice)
    labels = patch_changes(changes, grid, options.saturation).reshape(batch, -1)
    defective = labels.max(axis=1)
    return {"images": augmenter.jitter(images, rng), "defective": defective, "patches": labels}


def patch_changes(changes: Floats, grid: tuple[int, int], saturation: float) -> Floats:
    """float32 [B, rows, columns] in 0..1: the greatest change of a patch, saturating, of gray levels [B, H, W]."""
    batch, height, width = changes.shape
    rows, columns = grid
    cells = changes.reshape(batch, rows, height // rows, columns, width // columns).max(axis=(2, 4))
    return np.asarray(cells / (cells + saturation), np.float32)


def blend_pieces(image: Pixels, other: Pixels, rng: Rng, *, mixed: bool) -> Pixels:
    """A copy of uint8 [H, W, 3] with one to four pieces of `other` blended in."""
    result: Pixels = image
    for _ in range(rng.integers(1, MOST_PIECES + 1)):
        for _ in range(ATTEMPTS):
            blended = _blend_piece(result, other, rng, mixed=mixed)
            if np.abs(blended.astype(np.int16) - result).max() >= LEAST_CHANGE:
                result = blended
                break
    return np.asarray(result)


def _blend_piece(image: Pixels, other: Pixels, rng: Rng, *, mixed: bool) -> Pixels:
    sides = np.array(image.shape[:2])
    shares = np.minimum(LEAST + rng.gamma(GAMMA_SHAPE, GAMMA_SCALE, 2), MOST)
    target = np.clip(np.rint(shares * sides), 4, sides).astype(int)
    source = np.clip(np.rint(target / rng.uniform(*RESIZE)), 3, sides).astype(int)
    top, left = (int(n) for n in rng.integers(0, sides - source + 1))
    piece = Image.fromarray(other[top : top + source[0], left : left + source[1]])
    piece = piece.resize((int(target[1]), int(target[0])), Image.Resampling.BILINEAR)
    top, left = (int(n) for n in rng.integers(0, sides - target + 1))
    result: Pixels = image.copy()
    place = (slice(top, top + int(target[0])), slice(left, left + int(target[1])))
    result[place] = poisson(np.asarray(piece, np.float32), image[place].astype(np.float32), mixed=mixed)
    return result


def poisson(piece: Floats, under: Floats, *, mixed: bool) -> Pixels:
    """The image uint8 [H, W, C] with the gradients of `piece` and the border of `under`, both float32 [H, W, C].

    The Poisson equation on a rectangle is diagonal in sines, so it is solved exactly by two small matrix products.
    """
    guides = [_guide(piece, under, axis, mixed=mixed) for axis in (0, 1)]
    divergence = np.diff(guides[0], axis=0)[:, 1:-1] + np.diff(guides[1], axis=1)[1:-1]
    border = under.copy()
    border[1:-1, 1:-1] = 0
    beside = border[:-2, 1:-1] + border[2:, 1:-1] + border[1:-1, :-2] + border[1:-1, 2:]
    rows, row_values = _sines(divergence.shape[0])
    columns, column_values = _sines(divergence.shape[1])
    right = np.einsum("ij,jkc,kl->ilc", rows, divergence - beside, columns, optimize=True)
    right /= (row_values[:, None] + column_values[None, :])[:, :, None]
    inner = np.einsum("ij,jkc,kl->ilc", rows, right, columns, optimize=True)
    result = under.copy()
    result[1:-1, 1:-1] = inner
    return np.asarray(np.clip(np.rint(result), 0, 255), np.uint8)


def _guide(piece: Floats, under: Floats, axis: int, *, mixed: bool) -> Floats:
    """Gradients along an axis: the piece's, or the stronger of both."""
    wanted, own = np.diff(piece, axis=axis), np.diff(under, axis=axis)
    return np.asarray(np.where(np.abs(own) > np.abs(wanted), own, wanted) if mixed else wanted, np.float32)


@lru_cache(maxsize=256)
def _sines(count: int) -> tuple[Floats, Floats]:
    """Eigenvectors [n, n] (symmetric, their own inverse) and values [n] of the second difference with zeros around."""
    steps = np.arange(1, count + 1)
    vectors = np.sqrt(2 / (count + 1)) * np.sin(np.pi * np.outer(steps, steps) / (count + 1))
    values = 2 * np.cos(np.pi * steps / (count + 1)) - 2
    return vectors.astype(np.float32), values.astype(np.float32)
