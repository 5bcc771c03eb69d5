"""Why a verdict: how rare the score is among good images, where the picture differs, and what it should have looked like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.bank_rule import in_space
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.features import Features
from orinspect_edge_runtime.memory_bank import MemoryBank
from orinspect_edge_runtime.preprocess import Frame, PreprocessSpec, picture_in_frame
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.regions import connected_regions
from orinspect_edge_runtime.threshold import p_values
from orinspect_edge_runtime.tiling import View
from orinspect_edge_runtime.verdict import ACCEPT, REJECT, Verdict

MOST_REGIONS = 10
# The map is smoothed, so its peak can lie below a score that is just above the threshold: then so much of it is shown.
SHOWN_OF_PEAK = 0.1
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class NearestGood:
    """The good image nearest to a place. image: its name at the fit. x, y: centre of the patch, as shares of the model's
    frame from its left upper corner; None for scorers that compare whole images."""

    image: str
    x: float | None = None
    y: float | None = None


@dataclass(frozen=True)
class Region:
    """One connected place above the threshold. x, y, width, height: its box, in pixels of the picture as it came.

    area: share of the picture's pixels. peak: highest value of the map in it, on the score's scale.
    """

    x: int
    y: int
    width: int
    height: int
    area: float
    peak: float
    nearest: NearestGood | None


@dataclass(frozen=True)
class Explanation:
    """p_value: conformal, the share of good images that score as high, this one included (threshold.p_values).

    regions: of an image that is not accepted, the highest peak first, at most MOST_REGIONS; empty without a map.
    nearest: the nearest good image of scorers that compare whole images.
    """

    p_value: float
    regions: tuple[Region, ...]
    nearest: NearestGood | None


def explain(detector: Detector, frame: Frame, verdict: Verdict) -> Explanation:
    """Explain a verdict that this detector gave of this frame. The graph is run once more, unless it was accepted."""
    recipe = detector.recipe
    p_value = float(p_values(recipe.calibration_scores, np.array([verdict.score]))[0])
    if verdict.outcome == ACCEPT:
        return Explanation(p_value, (), None)
    features = detector.features(frame)
    if verdict.anomaly_map is None:
        return Explanation(p_value, (), _nearest_image(recipe, features, verdict.group))
    nearest = _NearestPatch(recipe, features, verdict.group, detector.view)
    return Explanation(p_value, _regions(verdict, frame, detector, nearest), None)


def _regions(verdict: Verdict, frame: Frame, detector: Detector, nearest: _NearestPatch) -> tuple[Region, ...]:
    anomaly_map, spec = np.asarray(verdict.anomaly_map), detector.view.spec
    above = anomaly_map > shown_above(verdict)
    numbers, count = connected_regions(above[None])
    places, values = np.argwhere(above), anomaly_map[above]
    found = []
    for number in range(count):
        own, peaks = places[numbers == number], values[numbers == number]
        peak = own[int(peaks.argmax())]
        box = _in_picture(own.min(axis=0), own.max(axis=0) + 1, frame, spec)
        share = len(own) / np.prod(picture_in_frame(frame.pixels.shape, spec)[2:])
        place = (peak + 0.5) / anomaly_map.shape
        near = nearest(place if verdict.pose is None else detector.place_in_part(place, frame, verdict.pose))
        found.append(Region(*box, float(min(share, 1.0)), float(peaks.max()), near))
    return tuple(sorted(found, key=lambda region: -region.peak)[:MOST_REGIONS])


def shown_above(verdict: Verdict) -> float:
    """The value of the map above which a place belongs to a region: the threshold that the score is above, or less."""
    crossed = verdict.threshold if verdict.outcome == REJECT else verdict.review_threshold
    anomaly_map = np.asarray(verdict.anomaly_map)
    highest, lowest = float(anomaly_map.max()), float(anomaly_map.min())
    shown = highest - SHOWN_OF_PEAK * (highest - lowest)
    return shown if crossed is None else min(crossed, shown)


def _in_picture(low: NDArray[Any], high: NDArray[Any], frame: Frame, spec: PreprocessSpec) -> tuple[int, int, int, int]:
    """x, y, width and height in the picture's pixels of a box in the model's, bars of a letterbox cut off."""
    left, top, width, height = picture_in_frame(frame.pixels.shape, spec)
    scale = np.array([frame.pixels.shape[0] / height, frame.pixels.shape[1] / width])
    size = np.array(frame.pixels.shape[:2])
    begin = np.clip(np.floor((low - [top, left]) * scale), 0, size - 1).astype(int)
    end = np.clip(np.ceil((high - [top, left]) * scale), begin + 1, size).astype(int)
    return int(begin[1]), int(begin[0]), int(end[1] - begin[1]), int(end[0] - begin[0])


class _NearestPatch:
    """The bank's row nearest to the patch at a place, [row, column] as shares of the frame; None without a bank."""

    def __init__(self, recipe: Recipe, features: Features, group: int, view: View) -> None:
        self._recipe, self._group, self._grid, self._view = recipe, group, np.array(view.grid), view
        self._bank = MemoryBank.of(recipe.arrays) if "bank_origin" in recipe.arrays else None
        self._patches = features.patches[0]

    def __call__(self, place: NDArray[Any]) -> NearestGood | None:
        if self._bank is None:
            return None
        row, column = np.minimum((place * self._grid).astype(int), self._grid - 1)
        number = self._view.patch_of[row * self._grid[1] + column]
        patch = in_space(self._recipe.arrays, self._patches[[number]])
        own = np.flatnonzero(self._bank.owners == self._group)
        image, number = self._bank.origin[own[np.square(self._bank.rows[own] - patch).sum(axis=1).argmin()]]
        y, x = (np.array(divmod(int(self._view.cells[number]), int(self._grid[1]))) + 0.5) / self._grid
        return NearestGood(self._recipe.images[image], float(x), float(y))


def _nearest_image(recipe: Recipe, features: Features, group: int) -> NearestGood | None:
    arrays = recipe.arrays
    if "reference_origin" not in arrays:
        return None
    end = int(np.cumsum(arrays["reference_counts"])[group])
    own = slice(end - int(arrays["reference_counts"][group]), end)
    embedding = (features.embedding[0] - arrays["embedding_mean"][group]) * arrays["embedding_scale"][group]
    nearest = int(np.square(arrays["references"][own] - embedding).sum(axis=1).argmin())
    return NearestGood(recipe.images[int(arrays["reference_origin"][own][nearest])])
