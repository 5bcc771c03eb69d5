"""From a frame to an event: score, outcome, debounce."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.detector import Detector, Verdict
from orinspect_edge_runtime.errors import ImageError, OrinspectError, RecipeError
from orinspect_edge_runtime.preprocess import Frame, Pixels, fit_to_model
from orinspect_edge_runtime.watch.config import RecipeConfig, VerdictConfig
from orinspect_edge_runtime.watch.event import ACCEPT, FAILED, REJECT, REVIEW, Event, thumbnail
from orinspect_edge_runtime.watch.slot import Item
from orinspect_edge_runtime.watch.trigger import Shot

# What stands for a picture that could not be read.
NO_FRAME = Frame(np.zeros((8, 8, 3), np.uint8), "", -1)


@dataclass
class Station:
    """An open recipe. known: its name, its file's sha256 and its graph's. in_a_row: anomalous frames, for debounce."""

    detector: Detector
    known: tuple[str, str, str]
    in_a_row: int = 0


@dataclass(frozen=True)
class Look:
    """What was judged last. fitted: the frame at the model's size, as it entered the graph."""

    frame: Frame
    fitted: Pixels
    verdict: Verdict


class Judge:
    """Detectors of all recipes of a configuration, which have reproduced golden, and the rules for their scores.

    Raises InputError or CheckFailed.
    """

    def __init__(self, recipe: RecipeConfig, rules: VerdictConfig) -> None:
        self._rules, self._stations = rules, dict[str, Station]()
        self.look: Look | None = None
        bundle = Bundle.open(recipe.bundle)
        try:
            for name in dict.fromkeys((recipe.name, *recipe.also)):
                station = _opened(bundle, name, recipe)
                self._stations[station.known[0]] = station
                station.detector.require_golden()
        except BaseException:
            self.close()
            raise
        self._now = next(iter(self._stations.values()))

    @property
    def detector(self) -> Detector:
        """The detector in use."""
        return self._now.detector

    @property
    def recipes(self) -> tuple[str, ...]:
        """Names of the open recipes."""
        return tuple(self._stations)

    @property
    def known(self) -> tuple[str, str, str]:
        """Name of the recipe in use, its file's sha256 and its graph's."""
        return self._now.known

    def version(self, recipe: str) -> str:
        """sha256 of an open recipe's file, empty when it is not open."""
        station = self._stations.get(recipe)
        return station.known[1] if station else ""

    def use(self, recipe: str) -> None:
        """Judge by another open recipe from the next frame on. Raises RecipeError."""
        self._now = self._station(recipe)

    def _station(self, recipe: str) -> Station:
        if recipe not in self._stations:
            raise RecipeError(f"no recipe {recipe!r} is open (open: {', '.join(self.recipes)})")
        return self._stations[recipe]

    def close(self) -> None:
        """Free the detectors."""
        for station in self._stations.values():
            station.detector.close()

    def __call__(self, item: Item, shot: Shot | None = None) -> Event:
        """The event of a frame, by the recipe that its trigger names; one that fails is an event too."""
        start = time.perf_counter()
        station, verdict, error, self.look = self._now, None, "", None
        try:
            if shot is not None and shot.recipe:
                station = self._station(shot.recipe)
            if isinstance(item, ImageError):
                raise item
            fitted = fit_to_model(item.pixels, station.detector.bundle.manifest.preprocess)
            verdict = station.detector(replace(item, pixels=fitted))
            self.look = Look(item, fitted, verdict)
        except (OrinspectError, RuntimeError, ValueError) as failed:
            error = " ".join(str(failed).split()) or type(failed).__name__
        frame = NO_FRAME if isinstance(item, ImageError) else item
        return self._event(station, frame, start, verdict, error, shot)

    def outcome(self, verdict: Verdict, station: Station | None = None) -> str:
        """accept, review or reject; counts the anomalous frames in a row, of each recipe by itself."""
        station = station or self._now
        station.in_a_row = station.in_a_row + 1 if verdict.is_anomalous else 0
        if station.in_a_row >= self._rules.debounce:
            return REJECT
        near = verdict.score > verdict.threshold - self._rules.review_band * abs(verdict.threshold)
        return REVIEW if verdict.is_anomalous or verdict.outcome == REVIEW or near else ACCEPT

    def _event(
        self, station: Station, frame: Frame, start: float, verdict: Verdict | None, error: str, shot: Shot | None
    ) -> Event:
        outcome = FAILED if verdict is None else self.outcome(verdict, station)
        picture = None if outcome in (ACCEPT, FAILED) else np.asarray(thumbnail(frame.pixels))
        return Event(
            uuid.uuid4().hex,
            frame.captured_at,
            time.time(),
            frame.source,
            frame.index,
            outcome,
            verdict.score if verdict else None,
            station.detector.recipe.threshold,
            (time.perf_counter() - start) * 1e3,
            *station.known,
            error,
            shot.at if shot else None,
            shot.by if shot else "",
            picture,
            None if picture is None or verdict is None else _small(verdict.anomaly_map),
        )


def _opened(bundle: Bundle, name: str, config: RecipeConfig) -> Station:
    detector = Detector.load(bundle, name or None, backend=config.backend, threads=config.threads)
    files, recipe = bundle.manifest, detector.recipe
    return Station(detector, (recipe.name, files.files[files.recipes[recipe.name]].sha256, recipe.graph_sha256))


def _small(anomaly_map: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    """Every second value; coloured in the journal's thread, not in the loop's."""
    return None if anomaly_map is None else anomaly_map[::2, ::2].copy()
