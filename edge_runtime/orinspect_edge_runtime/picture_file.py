"""Pixels as the content of a picture file."""

from __future__ import annotations

import io

from PIL import Image

from orinspect_edge_runtime.preprocess import Pixels


def to_png(pixels: Pixels, *, quick: bool = False) -> bytes:
    """PNG file content of uint8 [h, w, 3]. quick: rather than small."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **({"compress_level": 1} if quick else {"optimize": True}))
    return file.getvalue()


def to_jpeg(image: Image.Image, quality: int = 85) -> bytes:
    """JPEG file content."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()
