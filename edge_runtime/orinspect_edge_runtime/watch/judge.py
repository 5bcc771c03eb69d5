"""From a frame to an event: score, outcome, debounce."""

from __future__ import annotations

import time
import uuid

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.detector import Detector, Verdict
from orinspect_edge_runtime.errors import ImageError, OrinspectError
from orinspect_edge_runtime.preprocess import Frame
from orinspect_edge_runtime.watch.config import RecipeConfig, VerdictConfig
from orinspect_edge_runtime.watch.event import ACCEPT, FAILED, REJECT, REVIEW, Event, thumbnail
from orinspect_edge_runtime.watch.slot import Item


class Judge:
    """A detector that has reproduced golden, and the rules for its scores. Raises InputError or CheckFailed."""

    def __init__(self, recipe: RecipeConfig, rules: VerdictConfig) -> None:
        self.detector = Detector.load(
            recipe.bundle, recipe.name or None, backend=recipe.backend, threads=recipe.threads
        )
        self._rules, self._in_a_row = rules, 0
        try:
            self.detector.require_golden()
        except BaseException:
            self.detector.close()
            raise
        files, chosen = self.detector.bundle.manifest, self.detector.recipe
        self._known = (chosen.name, files.files[files.recipes[chosen.name]].sha256, chosen.graph_sha256)

    def __call__(self, item: Item) -> Event:
        """The event of a frame; one that fails is an event too."""
        start = time.perf_counter()
        if isinstance(item, ImageError):
            return self._event(Frame(np.zeros((8, 8, 3), np.uint8), "", -1), start, error=str(item))
        try:
            verdict = self.detector(item)
        except (OrinspectError, RuntimeError, ValueError) as error:
            return self._event(item, start, error=" ".join(str(error).split()) or type(error).__name__)
        return self._event(item, start, verdict)

    def outcome(self, verdict: Verdict) -> str:
        """accept, review or reject; counts the anomalous frames in a row."""
        self._in_a_row = self._in_a_row + 1 if verdict.is_anomalous else 0
        if self._in_a_row >= self._rules.debounce:
            return REJECT
        near = verdict.score > verdict.threshold - self._rules.review_band * abs(verdict.threshold)
        return REVIEW if verdict.is_anomalous or near else ACCEPT

    def _event(self, frame: Frame, start: float, verdict: Verdict | None = None, error: str = "") -> Event:
        outcome = FAILED if verdict is None else self.outcome(verdict)
        picture = None if outcome in (ACCEPT, FAILED) else np.asarray(thumbnail(frame.pixels))
        return Event(
            uuid.uuid4().hex,
            frame.captured_at,
            time.time(),
            frame.source,
            frame.index,
            outcome,
            verdict.score if verdict else None,
            self.detector.recipe.threshold,
            (time.perf_counter() - start) * 1e3,
            *self._known,
            error,
            picture,
            None if picture is None or verdict is None else _small(verdict.anomaly_map),
        )


def _small(anomaly_map: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    """Every second value; coloured in the journal's thread, not in the loop's."""
    return None if anomaly_map is None else anomaly_map[::2, ::2].copy()
