"""Drawn defects: what the pretext task shows the encoder. Cracks, spots, dark strips and pasted pieces.

Every function takes an image and gives its defect as an opacity and a fill; `draw_defect` blends them, so pixels
where the mask is False are exactly those of the image. Shapes are drawn at twice the size, to have soft edges.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Rng = np.random.Generator
# Opacity [H, W] in 0..1 and fill (broadcast to [H, W, 3]) in 0..255.
Layer = tuple[Floats, Floats]

SUPERSAMPLING = 2
# The mean change inside a mask, in gray levels, below which nobody could see the defect.
LEAST_CHANGE = 6.0
ATTEMPTS = 4
# Opacity from which a pixel belongs to the defect.
MASK_OPACITY = 0.3


def draw_defect(image: Pixels, other: Pixels, rng: Rng) -> tuple[Pixels, Mask]:
    """A copy of the image with one visible defect, uint8 [H, W, 3], and the mask of the changed pixels, bool [H, W].

    other: another image of the same size, which pasted pieces are cut from.
    """
    kinds = list(DEFECTS.values())
    for _ in range(ATTEMPTS):
        drawn, mask = _blend(image, kinds[rng.integers(len(kinds))](image, other, rng))
        if _change(image, drawn, mask) >= LEAST_CHANGE:
            return drawn, mask
    opacity, _ = spots(image, other, rng)
    return _blend(image, (_binary(opacity), _opposite(image)))


def crack(image: Pixels, other: Pixels, rng: Rng) -> Layer:
    """A dark poly-line that wanders, with up to two branches."""
    canvas, draw, side = _canvas(image)
    start, heading = rng.uniform(0.1, 0.9, 2) * side, rng.uniform(0, 2 * np.pi)
    width = max(1, round(side * rng.uniform(0.003, 0.01)))
    points = _walk(start, heading, side, rng, rng.uniform(0.2, 0.9))
    draw.line(points, fill=255, width=width)
    for _ in range(rng.integers(0, 3)):
        branch = points[rng.integers(len(points))]
        draw.line(_walk(np.array(branch), heading + rng.normal(0, 1), side, rng, rng.uniform(0.1, 0.4)), 255, width)
    return _shade(canvas, image, rng, rng.uniform(0.4, 0.95))


def spots(image: Pixels, other: Pixels, rng: Rng) -> Layer:
    """One to five ellipses, darker or (rarely) brighter, with soft or hard edges."""
    canvas, draw, side = _canvas(image)
    for _ in range(rng.integers(1, 6)):
        centre, radii = rng.uniform(0.05, 0.95, 2) * side, rng.uniform(0.012, 0.08, 2) * side
        draw.ellipse([*(centre - radii), *(centre + radii)], fill=255)
    return _shade(canvas, image, rng, rng.uniform(0.3, 0.9))


def strip(image: Pixels, other: Pixels, rng: Rng) -> Layer:
    """A dark band along an axis: a dead region, an interrupted finger, a missing print."""
    canvas, draw, side = _canvas(image)
    length, width = rng.uniform(0.15, 1.0) * side, rng.uniform(0.01, 0.2) * side
    extent = np.array([length, width])[:: rng.choice([-1, 1])]
    start = rng.uniform(-0.1, 0.9, 2) * side
    draw.rectangle([*start, *(start + extent)], fill=255)
    return _shade(canvas, image, rng, rng.uniform(0.3, 0.95))


def cut_paste(image: Pixels, other: Pixels, rng: Rng) -> Layer:
    """A rectangle of another image in the wrong place, turned (after Li et al. 2021, arXiv 2104.04015)."""
    height, width = image.shape[:2]
    tall, wide = (max(4, round(side * rng.uniform(0.08, 0.35))) for side in (height, width))
    source = other if rng.random() < 0.5 else image
    turned = np.rot90(source, int(rng.integers(1, 4))) if height == width else source[::-1, ::-1]
    top, left, row, column = (rng.integers(0, n) for n in (height - tall, width - wide, height - tall, width - wide))
    opacity, fill = np.zeros((height, width), np.float32), image.astype(np.float32)
    opacity[row : row + tall, column : column + wide] = 1.0
    fill[row : row + tall, column : column + wide] = turned[top : top + tall, left : left + wide]
    return opacity, fill * np.float32(rng.uniform(0.7, 1.1))


DEFECTS: dict[str, Callable[[Pixels, Pixels, Rng], Layer]] = {
    "crack": crack,
    "spots": spots,
    "strip": strip,
    "cut_paste": cut_paste,
}


def patch_labels(masks: Mask, rows: int, columns: int) -> Floats:
    """float32 [B, rows, columns]: 1 where a patch holds a defective pixel, of masks bool [B, H, W]."""
    batch, height, width = masks.shape
    cells = masks.reshape(batch, rows, height // rows, columns, width // columns)
    return np.asarray(cells.any(axis=(2, 4)), np.float32)


def _walk(start: NDArray[np.float64], heading: float, side: int, rng: Rng, reach: float) -> list[tuple[float, float]]:
    points, at = [(float(start[0]), float(start[1]))], np.asarray(start, np.float64)
    pieces = int(rng.integers(4, 12))
    for turn in rng.normal(0, 0.35, pieces):
        heading += turn
        at = at + np.array([np.cos(heading), np.sin(heading)]) * side * reach / pieces
        points.append((float(at[0]), float(at[1])))
    return points


def _canvas(image: Pixels) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    height, width = image.shape[:2]
    canvas = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    return canvas, ImageDraw.Draw(canvas), min(canvas.size)


def _shade(canvas: Image.Image, image: Pixels, rng: Rng, strength: float) -> Layer:
    """Multiply what lies under the shape by 1 - strength (mostly), or move it as far towards white."""
    blur = float(rng.choice([0.0, 0.0, 1.0, 3.0]))
    soft = canvas.filter(ImageFilter.GaussianBlur(blur)) if blur else canvas
    opacity = np.asarray(soft.reduce(SUPERSAMPLING), np.float32) / np.float32(255)
    target = np.float32(0.0 if rng.random() < 0.85 else 255.0)
    fill = image.astype(np.float32)
    return opacity, np.asarray(fill + (target - fill) * np.float32(strength), np.float32)


def _opposite(image: Pixels) -> Floats:
    return np.asarray(np.where(image > 127, 0, 255), np.float32)


def _binary(opacity: Floats) -> Floats:
    """At least one whole pixel, even if every ellipse fell outside or between pixels."""
    whole = (opacity >= MASK_OPACITY).astype(np.float32)
    if not whole.any():
        whole[whole.shape[0] // 2, whole.shape[1] // 2] = 1
    return whole


def _blend(image: Pixels, layer: Layer) -> tuple[Pixels, Mask]:
    opacity, fill = layer
    mask: Mask = opacity >= MASK_OPACITY
    blended = image + (fill - image) * opacity[..., None]
    # The faint rim below the mask's opacity is left out, so that outside of the mask nothing changes.
    drawn = np.where(mask[..., None], np.clip(np.rint(blended), 0, 255), image).astype(np.uint8)
    return drawn, mask


def _change(image: Pixels, drawn: Pixels, mask: Mask) -> float:
    if not mask.any():
        return 0.0
    return float(np.abs(drawn[mask].astype(np.int16) - image[mask]).mean())
