"""The inspected region of a recipe: score and map of the patches that lie in it, nothing of those that do not.

The graph scores all patches; their own scores are found again from its map (patch_scores.py), so that no graph or engine
is other than without a mask.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.localisation import read_mask
from orinspect_edge_runtime.patch_scores import PatchScores
from orinspect_edge_runtime.preprocess import PreprocessSpec

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def read_region(path: Path, spec: PreprocessSpec, grid: tuple[int, int]) -> Mask:
    """The inspected pixels of a mask file (white: inspected, black: not), bool [height, width] at the model's size.

    The file shows what the camera shows, at any size. Raises InputError when nothing is left to inspect.
    """
    mask = read_mask([path], spec)
    if not inspected_patches(mask, grid).any():
        raise InputError(f"{path}: no patch is left to inspect; paint white what is to be inspected")
    return mask


def inspected_patches(mask: Mask, grid: tuple[int, int]) -> Mask:
    """Which patches, bool [P], lie in the region by half of their cell or more."""
    shares = Image.fromarray(mask.astype(np.float32)).resize((grid[1], grid[0]), Image.Resampling.BOX)
    return np.asarray(shares).ravel() >= 0.5 - 1e-6


def on_all_patches(arrays: dict[str, NDArray[Any]], inspected: Mask) -> dict[str, NDArray[Any]]:
    """A scorer's arrays that were fitted on the inspected patches alone, as the graph takes them: for all positions.

    The others get a Gaussian that puts every patch at distance 0.
    """
    places, spread = np.flatnonzero(inspected), dict(arrays)
    for name in arrays.keys() & {"patch_means", "patch_factors", "patch_scales"}:
        spread[name] = np.zeros((len(arrays[name]), len(inspected), *arrays[name].shape[2:]), np.float32)
        spread[name][:, places] = arrays[name]
    if "bank_origin" in arrays:
        origin = arrays["bank_origin"]
        spread["bank_origin"] = np.stack([origin[:, 0], places[origin[:, 1]]], axis=1).astype(np.int32)
    return spread


class RegionMask:
    """A mask, bool [height, width], with what finds the patches' scores again."""

    def __init__(self, mask: Mask, grid: tuple[int, int]) -> None:
        self._mask, self._outside = mask, ~inspected_patches(mask, grid).reshape(grid)
        self._patches = PatchScores(grid, (mask.shape[0], mask.shape[1]))

    def apply(self, score: float, anomaly_map: Floats) -> tuple[float, Floats]:
        """Score of the inspected patches, and their map, which outside of the mask is 0 or its lowest value if lower.

        Raises CheckFailed when the map is not made from the patches as heads.py says.
        """
        if not np.isfinite(anomaly_map).all():
            return score, anomaly_map
        scores = self._patches.of(anomaly_map, score)
        inside = scores[~self._outside]
        scores[self._outside] = inside.min()
        masked = self._patches.drawn(scores)
        masked[~self._mask] = min(0.0, float(masked.min()))
        return float(inside.max()), masked
