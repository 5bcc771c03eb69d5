"""The patches' own scores out of a graph's map, and the map out of them.

The graph gives the map of the patches' scores, upsampled and smoothed by one matrix along each axis (heads.axis_filter).
These matrices are well conditioned, so the scores are found again to float32's precision, in a twentieth of a
millisecond, where computing the distances again takes as long as the graph.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import CheckFailed
from orinspect_edge_runtime.heads import axis_filter

Floats = NDArray[np.float32]
TOLERANCE = 1e-3


class PatchScores:
    """Both ways between scores float32 [rows, columns] of a grid and a map float32 [height, width]."""

    def __init__(self, grid: tuple[int, int], size: tuple[int, int]) -> None:
        self._tall, self._wide = axis_filter(grid[0], size[0]), axis_filter(grid[1], size[1])
        self._rows = np.linalg.pinv(self._tall.astype(np.float64)).astype(np.float32)
        self._columns = np.linalg.pinv(self._wide.astype(np.float64)).T.astype(np.float32)

    def of(self, anomaly_map: Floats, score: float) -> Floats:
        """The patches' scores; the map and the image's score must be finite.

        Raises CheckFailed when the map is not made from the patches as heads.py says, so that `score` is not the highest.
        """
        scores: Floats = self._rows @ anomaly_map @ self._columns
        if abs(float(scores.max()) - score) > TOLERANCE * max(1.0, abs(score), float(np.abs(scores).max())):
            raise CheckFailed(
                "this graph's anomaly map is not one that a mask or tiles can be used with: export the bundle again"
            )
        return scores

    def drawn(self, scores: Floats) -> Floats:
        """The map of these scores."""
        drawn: Floats = self._tall @ scores @ self._wide.T
        return drawn
