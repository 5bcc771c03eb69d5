"""Verdict: what a detector says of one frame, and the three outcomes that it can have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.alignment import Pose

ACCEPT, REVIEW, REJECT = "accept", "review", "reject"


@dataclass(frozen=True)
class Verdict:
    """What the detector says of one frame.

    score: normalised distance from the good images (0: a usual good image, 1: one standard deviation above).
    is_anomalous: score > threshold. anomaly_map: float32 [height, width] at the size that the recipe sees (tiling.py) and on
    the score's scale (padim's, if padim_mahalanobis adds to it), or None for scorers of the whole image. probability: share
    of good images that score lower. group: which kind of good image it was compared with. milliseconds: resize, graph and
    scoring of this frame. embedding: float32 [E], for a drift monitor. review_threshold: the recipe's, None when it has no
    review band. pose: how the part lay, of a recipe that brings parts to their place; the map is that of the picture as it
    came.
    """

    score: float
    threshold: float
    is_anomalous: bool
    anomaly_map: NDArray[np.float32] | None
    probability: float
    group: int
    milliseconds: float
    embedding: NDArray[np.float32]
    review_threshold: float | None = None
    pose: Pose | None = None

    @property
    def outcome(self) -> str:
        """`reject` above the threshold, `review` above the review threshold, else `accept`."""
        if self.is_anomalous:
            return REJECT
        return REVIEW if self.review_threshold is not None and self.score > self.review_threshold else ACCEPT
