"""Detector: the whole Python API for most people.

with Detector.load("bundle") as detector:
    verdict = detector("part.png")
    print(verdict.score, verdict.is_anomalous)
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.backends import Backend, T, open_backend
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import CheckFailed, RecipeError
from orinspect_edge_runtime.features import Features, assign_groups, score_features
from orinspect_edge_runtime.golden import compare, read_golden
from orinspect_edge_runtime.heads import head_inputs, neutral_inputs
from orinspect_edge_runtime.preprocess import Frame, fit_to_model, frame_of_array, read_frame
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.scorers import SCORERS


@dataclass(frozen=True)
class Verdict:
    """What the detector says of one frame.

    score: normalised distance from the good images (0: a usual good image, 1: one standard deviation above).
    is_anomalous: score > threshold. anomaly_map: float32 [height, width] at the model's size and on the score's scale,
    or None for scorers that judge the whole image. probability: share of good images that score lower.
    group: which kind of good image it was compared with. milliseconds: resize, graph and scoring of this frame.
    embedding: float32 [E], for a drift monitor.
    """

    score: float
    threshold: float
    is_anomalous: bool
    anomaly_map: NDArray[np.float32] | None
    probability: float
    group: int
    milliseconds: float
    embedding: NDArray[np.float32]


class Detector:
    """A bundle with one recipe, ready to score. Load it with `Detector.load`; `concurrency` threads may use it at once."""

    def __init__(self, bundle: Bundle, recipe: Recipe, backend: Backend) -> None:
        self.bundle = bundle
        self.recipe = recipe
        self._backend = backend
        self._scorer = SCORERS[recipe.scorer]
        self._preprocess = bundle.manifest.preprocess

    @classmethod
    def load(
        cls,
        path: Path | str | Bundle,
        recipe: str | None = None,
        *,
        backend: str = "auto",
        threads: int = 0,
        throughput: bool = False,
    ) -> Detector:
        """Open a bundle with a recipe (by name; none needed when there is one). The options are those of `open_backend`.

        Raises BundleError or RecipeError: damaged, missing, or a recipe fitted through another graph.
        """
        bundle = path if isinstance(path, Bundle) else Bundle.open(path)
        chosen = bundle.recipe(recipe)
        if chosen.scorer not in SCORERS:
            raise RecipeError(f"recipe {chosen.name!r} uses the scorer {chosen.scorer!r}: upgrade orinspect")
        head = SCORERS[chosen.scorer].head
        spec = bundle.manifest.graph(chosen.precision, head)
        if bundle.manifest.files[spec.file].sha256 != chosen.graph_sha256:
            raise RecipeError(
                f"recipe {chosen.name!r} was fitted through another {chosen.precision} graph; fit it again"
            )
        opened = open_backend(
            bundle.read(spec.file), spec, name=backend, threads=threads, throughput=throughput, bundle=bundle.path
        )
        opened.set_inputs(_resident(chosen, bundle, head))
        return cls(bundle, chosen, opened)

    @property
    def description(self) -> str:
        """What runs: library, device and precision, in words."""
        return f"{self.recipe.precision} on {self._backend.description}"

    @property
    def fitted_elsewhere(self) -> str | None:
        """A sentence when the recipe was fitted on another kind of backend than it runs on here, else None.

        Their numbers differ in the last digits, in int8 in more than those, and so may the rate of false alarms.
        """
        fitted, runs = self.recipe.backend.split(" ")[0], self._backend.description.split(" ")[0]
        if fitted == runs:
            return None
        return f"recipe {self.recipe.name!r} was fitted on {fitted} and runs on {runs}: fit it here to keep its promise"

    @property
    def concurrency(self) -> int:
        """Calls from several threads that are worth having under way at once."""
        return self._backend.concurrency

    def __call__(self, image: Frame | NDArray[Any] | Path | str) -> Verdict:
        """Verdict on a frame, a uint8 array ([h, w] or RGB [h, w, 3]) or an image file."""
        if isinstance(image, Frame):
            return self._judge(image)
        if isinstance(image, np.ndarray):
            return self._judge(frame_of_array(image))
        return self._judge(read_frame(Path(image), self._preprocess))

    def _judge(self, frame: Frame) -> Verdict:
        start = time.perf_counter()
        outputs = self._backend.run(fit_to_model(frame.pixels, self._preprocess)[None])
        return self.verdict(outputs, frame.source, start)

    def verdict(self, outputs: dict[str, NDArray[np.float32]], source: str, start: float | None = None) -> Verdict:
        """Verdict on the first frame of a graph's outputs. start: when its work began, seconds of time.perf_counter.

        Raises CheckFailed when the score is no number.
        """
        start = time.perf_counter() if start is None else start
        score, group, anomaly_map = self._score(outputs)
        if not math.isfinite(score):
            # Compared with a threshold it would pass for a good part.
            raise CheckFailed(f"{source}: {self.description} gave no number as its score; use another precision")
        return Verdict(
            score=score,
            threshold=self.recipe.threshold,
            is_anomalous=score > self.recipe.threshold,
            anomaly_map=anomaly_map,
            probability=self._probability(score),
            group=group,
            milliseconds=(time.perf_counter() - start) * 1e3,
            embedding=outputs["embedding"][0].copy(),
        )

    def _score(self, outputs: dict[str, NDArray[np.float32]]) -> tuple[float, int, NDArray[np.float32] | None]:
        """Score, group and map of the first frame: from the graph, or here for scorers of the whole image."""
        features = Features(outputs["embedding"][:1], outputs["patches"][:1])
        if self._scorer.has_map:
            group = assign_groups(self.recipe.arrays, features.embedding)
            return float(outputs["score"][0]), int(group[0]), outputs["anomaly_map"][0].copy()
        scores, group = score_features(self._scorer, self.recipe.arrays, features)
        return float(scores[0]), int(group[0]), None

    def _probability(self, score: float) -> float:
        """Share of the unseen good images that score lower, with the conformal correction (n + 1)."""
        known = self.recipe.calibration_scores
        return float(np.searchsorted(known, score, side="left") / (len(known) + 1))

    def require_golden(self) -> None:
        """Replay golden on the very backend that judges. Raises CheckFailed when it does not reproduce it."""
        head = self._scorer.head
        spec = self.bundle.manifest.graph(self.recipe.precision, head)
        try:
            replay = compare(self._backend, spec, read_golden(self.bundle))
        finally:
            self._backend.set_inputs(_resident(self.recipe, self.bundle, head))
        if not replay.passed:
            raise CheckFailed(
                f"{self.description} does not reproduce golden (least cosine {replay.least_cosine:.5f}): "
                "run  orinspect check  and build or copy the bundle again"
            )

    def close(self) -> None:
        """Free the backend."""
        self._backend.close()

    def __enter__(self: T) -> T:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _resident(recipe: Recipe, bundle: Bundle, head: str) -> dict[str, NDArray[Any]]:
    """The graph's inputs out of a recipe; scorers of the whole image leave the head's own ones neutral."""
    encoder = bundle.manifest.encoder
    if not SCORERS[recipe.scorer].has_map:
        return dict(neutral_inputs(head, encoder))
    missing = [spec.name for spec in head_inputs(head, encoder) if spec.name not in recipe.arrays]
    if missing:
        raise RecipeError(f"recipe {recipe.name!r} lacks {', '.join(missing)}; fit it again")
    return {spec.name: recipe.arrays[spec.name] for spec in head_inputs(head, encoder)}
