"""A sheet of what the encoder will be shown: some images, and what the method makes of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from orinspect_edge_runtime import durable
from orinspect_train.methods import Method

Pixels = NDArray[np.uint8]

PREVIEW_STREAM = 8
ROWS, COLUMNS = 6, 7
LEAST_CELL, GAP, CAPTION = 112, 4, 16
PAPER, INK = (255, 255, 255), (60, 60, 60)


def rendered_images(method: Method, pixels: Pixels, seed: int, count: int) -> list[tuple[str, Pixels]]:
    """At least `count` image arrays uint8 [B, H, W, 3] that the method renders of some images, each with its name."""
    found: list[tuple[str, Pixels]] = []
    for draw in range(count):
        batch = method.render(pixels.copy(), np.random.default_rng([seed, PREVIEW_STREAM, draw]))
        for name, value in batch.items():
            if value.dtype == np.uint8 and value.shape[-3:] == pixels.shape[1:]:
                # Some methods render several pieces of an image.
                pieces = value.reshape(len(pixels), -1, *pixels.shape[1:])
                found += [(name, pieces[:, piece]) for piece in range(pieces.shape[1])]
        if len(found) >= count:
            break
    return found


def write_preview(path: Path, method: Method, pixels: Pixels, seed: int) -> None:
    """Publish a PNG: a row for each of some images, uint8 [N, H, W, 3], first as it is, then as the method renders it.

    Raises InputError when the file cannot be written.
    """
    shown = pixels[:ROWS]
    columns = [("image", shown), *rendered_images(method, shown, seed, COLUMNS - 1)[: COLUMNS - 1]]
    height, width = (max(LEAST_CELL, side) for side in pixels.shape[1:3])
    size = len(columns) * (width + GAP) + GAP, len(shown) * (height + GAP) + CAPTION + GAP
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, (name, images) in enumerate(columns):
        left = GAP + column * (width + GAP)
        draw.text((left, 2), name, fill=INK)
        for row, image in enumerate(images):
            cell = Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(cell, (left, CAPTION + row * (height + GAP)))
    content = io.BytesIO()
    sheet.save(content, "PNG")
    durable.write_bytes(path, content.getvalue())
