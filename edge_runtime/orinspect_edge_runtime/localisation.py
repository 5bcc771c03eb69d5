"""How well anomaly maps find the defective pixels: masks brought to the maps' size, and metrics over all pixels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, UnidentifiedImageError

from orinspect_edge_runtime.errors import ImageError, InputError
from orinspect_edge_runtime.pixel_curve import Counts, area_under, count_pixels, weigh
from orinspect_edge_runtime.preprocess import IMAGE_FORMATS, Pixels, PreprocessSpec, fit_to_model
from orinspect_edge_runtime.regions import connected_regions

HALF = 128
Mask = NDArray[np.bool_]
Values = NDArray[Any]
Weights = NDArray[np.float64]
# The name under which pixels of good images are counted; no kind of defect is called so.
GOOD = ""


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


@dataclass(frozen=True)
class MaskedMap:
    """What the metrics need of a map with a mask. kind: GOOD when no pixel is marked.

    marked: values of the marked pixels [M]; weights: of each, 1 / pixels of its region, float64 [M]; regions: number of
    them; unmarked: values of the other pixels, float32 [U].
    """

    kind: str
    marked: Values
    weights: Weights
    regions: int
    unmarked: Values

    @classmethod
    def of(cls, kind: str, mask: Mask, values: Values) -> MaskedMap:
        """mask: bool [H, W]; values: float [H, W]. Raises InputError for values that are not finite."""
        refuse_infinite(values)
        region, regions = connected_regions(mask[None])
        weights = 1.0 / np.bincount(region)[region]
        unmarked = values[~mask].astype(np.float32)
        return cls(kind if regions else GOOD, values[mask].astype(np.float32), weights, regions, unmarked)


class Localiser:
    """Pixel metrics of images that come one by one: the marked pixels of all that have a mask, then all unmarked ones.

    Memory: value and weight of every marked pixel, and counts at each of their values. Good pixels are not kept.
    """

    def __init__(self) -> None:
        self._marked: dict[str, list[tuple[Values, Weights]]] = {}
        self._regions: dict[str, int] = {}
        self._thresholds: Values | None = None
        self._counts: dict[str, Counts] = {}

    def add_marked(self, one: MaskedMap) -> None:
        """Take in the marked pixels of a map."""
        if self._thresholds is not None:
            raise ValueError("all marked pixels come before the first unmarked ones")
        if one.regions:
            self._marked.setdefault(one.kind, []).append((one.marked, one.weights))
            self._regions[one.kind] = self._regions.get(one.kind, 0) + one.regions

    @property
    def thresholds(self) -> Values:
        """Distinct values of the marked pixels in ascending order, float32 [T]; from now on no marked ones are taken."""
        if self._thresholds is None:
            values = [values for images in self._marked.values() for values, _ in images]
            self._thresholds = np.unique(np.concatenate(values)) if values else np.zeros(0, np.float32)
        return self._thresholds

    def add_unmarked(self, one: MaskedMap) -> None:
        """Take in the unmarked pixels of a map."""
        self.add_counts(one.kind, count_pixels(self.thresholds, one.unmarked))

    def add_counts(self, kind: str, counts: Counts) -> None:
        """Take in unmarked pixels of one kind of image, counted between `thresholds` (see pixel_curve)."""
        self._counts[kind] = self._counts[kind] + counts if kind in self._counts else counts

    def figures(self) -> Localisation | None:
        """The metrics; None when no pixel is marked, or every one."""
        marked = [one for images in self._marked.values() for one in images]
        if not marked or not self._total(self._counts).any():
            return None
        return Localisation(
            masked_images=len(marked),
            pixel_auroc=self._area(list(self._marked), by_pixel=True),
            aupro_30=self._area(list(self._marked)),
            aupro_05=self._area(list(self._marked), limit=0.05),
            aupro_30_by_kind={kind: self._area([kind]) for kind in self._marked if self._total((GOOD, kind)).any()},
        )

    def _total(self, kinds: Iterable[str]) -> Counts:
        """Counts of the unmarked pixels of some kinds of image."""
        total = np.zeros(2 * len(self.thresholds) + 1, np.int64)
        for kind in kinds:
            total += self._counts.get(kind, 0)
        return total

    def _area(self, kinds: list[str], limit: float | None = None, by_pixel: bool = False) -> float:
        """Area under the overlap curve of the regions of some kinds, or under the ROC curve of their pixels."""
        parts = [one for kind in kinds for one in self._marked[kind]]
        values = np.concatenate([values for values, _ in parts])
        regions = sum(self._regions[kind] for kind in kinds)
        weights = np.concatenate([weights for _, weights in parts]) / regions
        if by_pixel:
            weights, limit = np.full(len(values), 1.0 / len(values)), 1.0
        gains = weigh(self.thresholds, values, weights)
        return area_under(self._total((GOOD, *kinds)), gains, 0.3 if limit is None else limit)


class GoodCounts:
    """Counts of the pixels of good images between `thresholds` [T], int64 [2 T + 1]; memory for as many pixels more."""

    def __init__(self, thresholds: Values) -> None:
        self._thresholds = thresholds
        self._counts: Counts = np.zeros(2 * len(thresholds) + 1, np.int64)
        self._waiting: list[Values] = []

    def add(self, values: Values) -> None:
        """Take in the map of a good image. Raises InputError for values that are not finite."""
        refuse_infinite(values)
        self._waiting.append(values.reshape(-1))
        # Counting costs as much for one picture as for many that have as many pixels as there are counts.
        if sum(map(len, self._waiting)) >= len(self._counts):
            self.total()

    def total(self) -> Counts:
        """The counts of all maps so far."""
        if self._waiting:
            self._counts += count_pixels(self._thresholds, np.concatenate(self._waiting))
            self._waiting.clear()
        return self._counts


def refuse_infinite(values: Values) -> None:
    """Raises InputError for a map with values that are not finite."""
    if not np.isfinite(values).all():
        raise InputError("a map holds values that are not finite; the model or its precision is broken")


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
