"""How well anomaly maps find the defective pixels: masks brought to the maps' size, and metrics over all pixels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, UnidentifiedImageError

from orinspect_edge_runtime import metrics
from orinspect_edge_runtime.errors import ImageError
from orinspect_edge_runtime.preprocess import IMAGE_FORMATS, Pixels, PreprocessSpec, fit_to_model

HALF = 128
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Localisation:
    """Pixel metrics at the model's size, over the good images and the defective ones that have a mask.

    masked_images: number of the latter. aupro_30, aupro_05: area under the per-region overlap curve up to a pixel
    false-positive rate of 0.3 and 0.05, divided by it. aupro_30_by_kind: of one kind of defect and all good images.
    """

    masked_images: int
    pixel_auroc: float
    aupro_30: float
    aupro_05: float
    aupro_30_by_kind: dict[str, float]


def localise(kinds: Sequence[str], masks: NDArray[Any], maps: NDArray[Any]) -> Localisation | None:
    """Pixel metrics; None when no pixel is marked, or every one. masks bool [N, H, W], maps float [N, H, W].

    kinds: of each image; an image without a marked pixel counts as good, whatever its kind.
    """
    marked = masks.any(axis=(1, 2))
    if not marked.any() or masks.all():
        return None
    names = np.array(kinds)
    by_kind = {}
    for kind in dict.fromkeys(names[marked].tolist()):
        rows = ~marked | (names == kind)
        if not masks[rows].all():
            by_kind[str(kind)] = metrics.aupro(masks[rows], maps[rows])
    return Localisation(
        masked_images=int(marked.sum()),
        pixel_auroc=metrics.pixel_auroc(masks, maps),
        aupro_30=metrics.aupro(masks, maps),
        aupro_05=metrics.aupro(masks, maps, limit=0.05),
        aupro_30_by_kind=by_kind,
    )


def read_mask(paths: Sequence[Path], spec: PreprocessSpec) -> Mask:
    """All marked pixels of the mask files, bool [height, width] at the model's size; none without files.

    A pixel of a file is marked when it is not 0. One of the model's is when half of it is; a defect too small for
    that keeps the pixel it covers most. Raises ImageError naming a file that cannot be read.
    """
    whole = np.zeros((spec.height, spec.width), bool)
    for path in paths:
        marked = _decode(path)
        if marked.any():
            covered = _covered(marked, spec)
            if covered.max() < HALF:
                # Smaller than a pixel of the model's: widened to one, or it would be rounded to nothing.
                covered = _covered(_widened(marked, spec), spec)
            whole |= covered >= min(HALF, covered.max())
    return whole


def _covered(marked: Mask, spec: PreprocessSpec) -> Pixels:
    """How much of each pixel of the model's is marked, uint8 [height, width], 255 for all of it."""
    return fit_to_model(np.repeat(marked.astype(np.uint8)[:, :, None] * 255, 3, axis=2), spec)[:, :, 0]


def _widened(marked: Mask, spec: PreprocessSpec) -> Mask:
    height, width = marked.shape
    side = math.ceil(max(height / spec.height, width / spec.width)) | 1
    return np.asarray(Image.fromarray(marked.astype(np.uint8)).filter(ImageFilter.MaxFilter(side))) > 0


def _decode(path: Path) -> Mask:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=IMAGE_FORMATS) as image:
                pixels = np.asarray(image.convert("RGB") if image.mode not in ("1", "L", "P", "I", "I;16") else image)
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: a mask that cannot be read ({' '.join(str(error).split())})") from error
    return np.asarray(pixels != 0 if pixels.ndim == 2 else (pixels != 0).any(axis=2), bool)
