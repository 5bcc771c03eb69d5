"""Scorers: what "far from the good images" means. One file a method; the table names them for the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.scorers.knn import Knn
from orinspect_edge_runtime.scorers.mahalanobis import Mahalanobis
from orinspect_edge_runtime.scorers.padim import Padim
from orinspect_edge_runtime.scorers.padim_mahalanobis import PadimMahalanobis
from orinspect_edge_runtime.scorers.patchcore import PatchCore
from orinspect_edge_runtime.scorers.student import Student

Floats = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]


class Scorer(Protocol):
    """Fits arrays to good images, and scores images with them exactly as the fused graph does.

    embeddings: float32 [N, E]. patches: float32 [N, P, D], as the graph gives them. groups: int [N], 0 to n_groups - 1;
    a group without images is given all of them. Everything is deterministic in `seed`.
    """

    @property
    def name(self) -> str:
        """The scorer's key in SCORERS."""

    @property
    def head(self) -> str:
        """Which fused graph runs it, see heads.py."""

    @property
    def has_map(self) -> bool:
        """Whether the graph's head computes this score (but see COMPLETED); else it is computed here, from the embedding."""

    def fit(
        self,
        embeddings: Floats,
        patches: Floats,
        groups: NDArray[Any],
        n_groups: int,
        *,
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
    ) -> Arrays:
        """The head's own graph inputs (see heads.py), or the scorer's arrays when it has no map.

        progress: called with the share done.
        """

    def raw_scores(
        self, arrays: Arrays, embeddings: Floats, patches: Floats, groups: NDArray[Any]
    ) -> tuple[Floats, Floats | None]:
        """Scores [N] before offset and scale, and patch distances [N, P] when there is a map. The score is the largest of an
        image's, but for COMPLETED.
        """


SCORERS: dict[str, Scorer] = {
    "patchcore": PatchCore(),
    "padim": Padim(),
    "padim_mahalanobis": PadimMahalanobis(),
    "student": Student(),
    "knn": Knn(),
    "mahalanobis": Mahalanobis(),
}
# Those that judge places and the whole: score and map of the graph's head are completed on the host, from the embedding.
COMPLETED = {"padim_mahalanobis": PadimMahalanobis()}
