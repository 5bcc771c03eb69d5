"""From a frame to an event: score, outcome, debounce."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.errors import ImageError, OrinspectError, RecipeError
from orinspect_edge_runtime.preprocess import Frame, Pixels, fit_to_model
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.verdict import ACCEPT, REJECT, REVIEW, Verdict
from orinspect_edge_runtime.watch.config import RecipeConfig, VerdictConfig
from orinspect_edge_runtime.watch.event import FAILED, Event, thumbnail
from orinspect_edge_runtime.watch.slot import Item
from orinspect_edge_runtime.watch.trigger import Shot

# What stands for a picture that could not be read.
NO_FRAME = Frame(np.zeros((8, 8, 3), np.uint8), "", -1)


@dataclass
class Product:
    """A recipe that is ready. known: its name, its file's sha256 and its graph's. in_a_row: of anomalous frames."""

    recipe: Recipe
    known: tuple[str, str, str]
    in_a_row: int = 0


@dataclass(frozen=True)
class Look:
    """What was judged last. fitted: the frame at the size that the recipe sees."""

    frame: Frame
    fitted: Pixels
    verdict: Verdict


class Judge:
    """A detector that has reproduced golden, with every recipe of a configuration ready, and the rules for its scores.

    products: by recipe. look: the last one, None for a frame that failed. Raises InputError or CheckFailed.
    """

    def __init__(self, recipe: RecipeConfig, rules: VerdictConfig) -> None:
        self.detector = Detector.load(
            recipe.bundle, recipe.name or None, recipes=recipe.also, backend=recipe.backend, threads=recipe.threads
        )
        self.look: Look | None = None
        self._rules, self._now = rules, self.detector.recipe.name
        try:
            self.detector.require_golden()
            self.products = {name: _product(self.detector.bundle, name) for name in self.detector.ready}
        except BaseException:
            self.detector.close()
            raise

    @property
    def product(self) -> Product:
        """What is judged when no trigger names a recipe."""
        return self.products[self._now]

    @property
    def recipes(self) -> tuple[str, ...]:
        """Names of the recipes that are ready."""
        return tuple(self.products)

    def version(self, recipe: str) -> str:
        """sha256 of a ready recipe's file, empty when it is not ready."""
        product = self.products.get(recipe)
        return product.known[1] if product else ""

    def use(self, recipe: str) -> None:
        """Judge by another recipe that is ready from the next frame on; called from any thread. Raises RecipeError."""
        self._now = self._ready(recipe)

    def _ready(self, recipe: str) -> str:
        if recipe not in self.products:
            raise RecipeError(f"no recipe {recipe!r} is ready (ready: {', '.join(self.products)})")
        return recipe

    def close(self) -> None:
        """Free the detector."""
        self.detector.close()

    def __call__(self, item: Item, shot: Shot | None = None) -> Event:
        """The event of a frame, by the recipe that its trigger names; one that fails is an event too."""
        start, name, error, self.look = time.perf_counter(), self._now, "", None
        try:
            if shot is not None and shot.recipe:
                name = self._ready(shot.recipe)
            if isinstance(item, ImageError):
                raise item
            self.detector.use(name)
            fitted = fit_to_model(item.pixels, self.detector.view.spec)
            # Where a part lies is found in the picture as it came: stretched, a turn is no turn.
            seen = item if self.detector.recipe.align is not None else replace(item, pixels=fitted)
            self.look = Look(item, fitted, self.detector(seen))
        except (OrinspectError, RuntimeError, ValueError) as failed:
            error = " ".join(str(failed).split()) or type(failed).__name__
        frame = NO_FRAME if isinstance(item, ImageError) else item
        return self._event(self.products[name], frame, start, error, shot)

    def outcome(self, verdict: Verdict, product: Product | None = None) -> str:
        """accept, review or reject; counts the anomalous frames in a row, of each recipe by itself."""
        product = product or self.product
        product.in_a_row = product.in_a_row + 1 if verdict.is_anomalous else 0
        if product.in_a_row >= self._rules.debounce:
            return REJECT
        near = verdict.score > verdict.threshold - self._rules.review_band * abs(verdict.threshold)
        return REVIEW if verdict.is_anomalous or verdict.outcome == REVIEW or near else ACCEPT

    def _event(self, product: Product, frame: Frame, start: float, error: str, shot: Shot | None) -> Event:
        verdict = self.look.verdict if self.look else None
        outcome = FAILED if verdict is None else self.outcome(verdict, product)
        picture = None if outcome in (ACCEPT, FAILED) else np.asarray(thumbnail(frame.pixels))
        return Event(
            uuid.uuid4().hex,
            frame.captured_at,
            time.time(),
            frame.source,
            frame.index,
            outcome,
            verdict.score if verdict else None,
            product.recipe.threshold,
            (time.perf_counter() - start) * 1e3,
            *product.known,
            error,
            shot.at if shot else None,
            shot.by if shot else "",
            picture,
            None if picture is None or verdict is None else _small(verdict.anomaly_map),
        )


def _product(bundle: Bundle, name: str) -> Product:
    recipe, files = bundle.recipe(name), bundle.manifest
    return Product(recipe, (name, files.files[files.recipes[name]].sha256, recipe.graph_sha256))


def _small(anomaly_map: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    """Every second value; coloured in the journal's thread, not in the loop's."""
    return None if anomaly_map is None else anomaly_map[::2, ::2].copy()
