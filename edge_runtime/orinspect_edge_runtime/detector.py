"""Detector: the whole Python API for most people.

with Detector.load("bundle") as detector:
    verdict = detector("part.png")
    print(verdict.score, verdict.is_anomalous)
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.aligned_frames import in_place
from orinspect_edge_runtime.alignment import Aligner, Pose
from orinspect_edge_runtime.backends import Backend, open_backend
from orinspect_edge_runtime.backends.recipe_inputs import resident
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.closing import Closing
from orinspect_edge_runtime.errors import CheckFailed, RecipeError
from orinspect_edge_runtime.features import Features, assign_groups, score_features
from orinspect_edge_runtime.golden import compare, read_golden
from orinspect_edge_runtime.heads import neutral_arrays
from orinspect_edge_runtime.manifest import GraphSpec
from orinspect_edge_runtime.preprocess import Frame, PreprocessSpec, frame_of_array, read_frame
from orinspect_edge_runtime.recipe import Recipe, aligner_of
from orinspect_edge_runtime.region_mask import RegionMask
from orinspect_edge_runtime.scorers import COMPLETED, SCORERS, Scorer
from orinspect_edge_runtime.tiling import View, view_of
from orinspect_edge_runtime.verdict import Verdict

Image: TypeAlias = Frame | NDArray[Any] | Path | str


@dataclass(frozen=True)
class _Ready:
    """A recipe whose arrays are resident. inputs: what its backend's `run` takes, None for those of `set_inputs`.

    region: its mask, if it has one. view: what it sees of a picture. aligner: what brings its parts to their place.
    """

    recipe: Recipe
    file: str
    backend: Backend
    inputs: Any
    region: RegionMask | None
    view: View
    aligner: Aligner | None


class Detector(Closing):
    """A bundle with its recipes ready to score. Load it with `Detector.load`; `concurrency` threads may use it at once.

    Every call judges by one recipe from its beginning to its end, whatever `use` is told by another thread meanwhile.
    """

    def __init__(self, bundle: Bundle, recipe: Recipe, backend: Backend) -> None:
        self.bundle = bundle
        self._opening: dict[str, Any] = {}
        self._backends = {(recipe.precision, SCORERS[recipe.scorer].head): backend}
        self._active = _made_ready(bundle, recipe, backend, None)
        self._ready = {recipe.name: self._active}

    @classmethod
    def load(
        cls,
        path: Path | str | Bundle,
        recipe: str | None = None,
        *,
        recipes: Iterable[str] = (),
        backend: str = "auto",
        threads: int = 0,
        throughput: bool = False,
    ) -> Detector:
        """Open a bundle with a recipe (by name; none needed when there is one). The options are those of `open_backend`.

        recipes: further ones to make ready for `use`. Only the files that are used are hashed. Raises BundleError or
        RecipeError: damaged, missing, or a recipe fitted through another graph.
        """
        bundle, chosen = (path, path.recipe(recipe)) if isinstance(path, Bundle) else Bundle.with_recipe(path, recipe)
        opening = {"name": backend, "threads": threads, "throughput": throughput, "bundle": bundle.path}
        opened = _open(bundle, chosen, opening)
        detector = cls(bundle, chosen, opened)
        detector._opening = opening
        try:
            opened.set_inputs(_resident(chosen, bundle))
            for name in recipes:
                detector.prepare(name)
        except BaseException:
            detector.close()
            raise
        return detector

    @property
    def recipe(self) -> Recipe:
        """The recipe in use."""
        return self._active.recipe

    @property
    def view(self) -> View:
        """What the recipe in use sees of a picture: the whole, or tiles of it."""
        return self._active.view

    @property
    def ready(self) -> tuple[str, ...]:
        """Names of the recipes that `use` can switch to."""
        return tuple(self._ready)

    def prepare(self, name: str) -> None:
        """Make a recipe ready for `use`: its arrays become resident, and its graph is opened if none of its kind is.

        Takes the recipe as the bundle lists it, so this also takes over an edit. Not while it judges in other threads.
        """
        chosen, old = self.bundle.recipe(name), self._ready.get(name)
        key = (chosen.precision, _scorer(chosen).head)
        if key not in self._backends:
            self._backends[key] = _open(self.bundle, chosen, self._opening)
        backend = self._backends[key]
        _check_graph(self.bundle, chosen)
        inputs = backend.prepare(_resident(chosen, self.bundle))
        self._ready[name] = _made_ready(self.bundle, chosen, backend, inputs)
        if old is not None:
            if self._active is old:
                self._active = self._ready[name]
            if old.inputs is not None:
                old.backend.release(old.inputs)

    def use(self, name: str) -> None:
        """Judge by another recipe from the next call on. It must be ready: then this is instant.

        Raises RecipeError naming the recipes that are.
        """
        if name not in self._ready:
            known = ", ".join(self._ready)
            raise RecipeError(
                f"recipe {name!r} is not ready (ready: {known}): name it in load(recipes=[...]) or prepare it"
            )
        self._active = self._ready[name]

    def refresh(self) -> tuple[str, ...]:
        """Take over what was published since: recipes that were edited or fitted again. Returns their names.

        Not while it judges in other threads. A recipe that was removed stays in use here.
        """
        self.bundle = self.bundle.now()
        listed = self.bundle.manifest.recipes
        changed = tuple(name for name, ready in self._ready.items() if listed.get(name, ready.file) != ready.file)
        for name in changed:
            self.prepare(name)
        return changed

    @property
    def description(self) -> str:
        """What runs: library, device and precision, in words."""
        return f"{self.recipe.precision} on {self._active.backend.description}"

    @property
    def fitted_elsewhere(self) -> str | None:
        """A sentence when the recipe was fitted on another kind of backend than it runs on here, else None.

        Their numbers differ in the last digits, in int8 in more than those, and so may the rate of false alarms.
        """
        fitted, runs = self.recipe.backend.split(" ")[0], self._active.backend.description.split(" ")[0]
        if fitted == runs:
            return None
        return f"recipe {self.recipe.name!r} was fitted on {fitted} and runs on {runs}: fit it here to keep its promise"

    @property
    def concurrency(self) -> int:
        """Calls from several threads that are worth having under way at once."""
        return self._active.backend.concurrency

    def __call__(self, image: Image) -> Verdict:
        """Verdict on a frame, a uint8 array ([h, w] or RGB [h, w, 3]) or an image file."""
        ready = self._active
        frame, start = _frame(image, ready.view.spec, reduced=True), time.perf_counter()
        outputs, pose = _run(ready, frame)
        verdict = self._verdict(ready, outputs, frame.source, start)
        return verdict if pose is None else _in_picture(ready, verdict, frame, pose, start)

    def frame(self, image: Image, *, reduced: bool = False) -> Frame:
        """The image as a frame. reduced: of a file, as of `read_frame`."""
        return _frame(image, self.view.spec, reduced=reduced)

    def features(self, image: Image) -> Features:
        """Features of one image through the graph of the recipe in use: embedding [1, E] and patches [1, P, D]."""
        outputs, _ = _run(self._active, self.frame(image))
        return Features(outputs["embedding"].copy(), outputs["patches"].copy())

    def place_in_part(self, place: NDArray[np.float64], frame: Frame, pose: Pose) -> NDArray[np.float64]:
        """Where [row, column] of a frame, as shares of the model's frame, lies when the part is in its place."""
        aligner = self._active.aligner
        return place if aligner is None else aligner.in_part(place, pose, frame.pixels.shape, self.view.spec)

    def verdict(self, outputs: dict[str, NDArray[np.float32]], source: str, start: float | None = None) -> Verdict:
        """Verdict on the first frame of a graph's outputs. start: when its work began, seconds of time.perf_counter.

        Raises CheckFailed when the score is no number.
        """
        return self._verdict(self._active, outputs, source, time.perf_counter() if start is None else start)

    def _verdict(self, ready: _Ready, outputs: dict[str, NDArray[np.float32]], source: str, start: float) -> Verdict:
        score, group, anomaly_map = _score(ready, outputs)
        if not math.isfinite(score):
            # Compared with a threshold it would pass for a good part.
            raise CheckFailed(f"{source}: {self.description} gave no number as its score; use another precision")
        return Verdict(
            score=score,
            threshold=ready.recipe.threshold,
            is_anomalous=score > ready.recipe.threshold,
            anomaly_map=anomaly_map,
            probability=_probability(ready.recipe, score),
            group=group,
            milliseconds=(time.perf_counter() - start) * 1e3,
            embedding=outputs["embedding"][0].copy(),
            review_threshold=ready.recipe.review_threshold,
        )

    def require_golden(self) -> None:
        """Replay golden on the very backends that judge. Raises CheckFailed when one does not reproduce it."""
        for (precision, head), backend in self._backends.items():
            spec = self.bundle.manifest.graph(precision, head)
            try:
                replay = compare(backend, spec, read_golden(self.bundle))
            finally:
                self._restore(backend)
            if not replay.passed:
                raise CheckFailed(
                    f"{precision} on {backend.description} does not reproduce golden (least cosine "
                    f"{replay.least_cosine:.5f}): run  orinspect check  and build or copy the bundle again"
                )

    def _restore(self, backend: Backend) -> None:
        """Set a backend's inputs again, if a recipe uses them."""
        for ready in self._ready.values():
            if ready.backend is backend and ready.inputs is None:
                backend.set_inputs(_resident(ready.recipe, self.bundle))

    def close(self) -> None:
        """Free the backends."""
        with contextlib.ExitStack() as stack:
            for backend in self._backends.values():
                stack.callback(backend.close)


def _frame(image: Image, spec: PreprocessSpec, *, reduced: bool) -> Frame:
    if isinstance(image, Frame):
        return image
    if isinstance(image, np.ndarray):
        return frame_of_array(image)
    return read_frame(Path(image), spec, reduced=reduced)


def _run(ready: _Ready, frame: Frame) -> tuple[dict[str, NDArray[np.float32]], Pose | None]:
    """The graph's outputs for a frame, and how its part lay when the recipe brings parts to their place."""
    seen, pose = in_place(frame, ready.aligner, ready.view.spec)
    return ready.view.run(lambda pixels: ready.backend.run(pixels, ready.inputs), seen), pose


def _in_picture(ready: _Ready, verdict: Verdict, frame: Frame, pose: Pose, start: float) -> Verdict:
    """The verdict on a placed picture with the pose, and its map as that of the picture as it came."""
    anomaly_map = verdict.anomaly_map
    if anomaly_map is not None and ready.aligner is not None:
        anomaly_map = ready.aligner.in_picture(anomaly_map, pose, frame.pixels.shape, ready.view.spec)
    return replace(verdict, pose=pose, anomaly_map=anomaly_map, milliseconds=(time.perf_counter() - start) * 1e3)


def _score(ready: _Ready, outputs: dict[str, NDArray[np.float32]]) -> tuple[float, int, NDArray[np.float32] | None]:
    """Score, group and map of the first frame: from the graph, or here for scorers of the whole image."""
    recipe, scorer = ready.recipe, SCORERS[ready.recipe.scorer]
    features = Features(outputs["embedding"][:1], outputs["patches"][:1])
    if scorer.has_map:
        group = assign_groups(recipe.arrays, features.embedding)
        score, anomaly_map = float(outputs["score"][0]), outputs["anomaly_map"][0].copy()
        if ready.region is not None:
            score, anomaly_map = ready.region.apply(score, anomaly_map)
        if recipe.scorer in COMPLETED:
            score, anomaly_map = _completed(recipe, features, group, score, anomaly_map)
        return score, int(group[0]), anomaly_map
    scores, group = score_features(scorer, recipe.arrays, features)
    return float(scores[0]), int(group[0]), None


def _completed(
    recipe: Recipe, features: Features, group: NDArray[np.intp], score: float, anomaly_map: NDArray[np.float32]
) -> tuple[float, NDArray[np.float32]]:
    """Score and map of the graph as a scorer of COMPLETED has them."""
    scorer = COMPLETED[recipe.scorer]
    (added,) = scorer.added(recipe.arrays, features.embedding, group) * recipe.arrays["score_scale"][group]
    return score + float(added), anomaly_map * scorer.map_factor(recipe.arrays, group)


def _made_ready(bundle: Bundle, recipe: Recipe, backend: Backend, inputs: Any) -> _Ready:
    manifest = bundle.manifest
    region = RegionMask(recipe.arrays["mask"], manifest.encoder.grid) if "mask" in recipe.arrays else None
    view = view_of(recipe.tiles, manifest)
    return _Ready(recipe, manifest.recipes.get(recipe.name, ""), backend, inputs, region, view, aligner_of(recipe))


def _probability(recipe: Recipe, score: float) -> float:
    """Share of the unseen good images that score lower, with the conformal correction (n + 1)."""
    known = recipe.calibration_scores
    return float(np.searchsorted(known, score, side="left") / (len(known) + 1))


def _scorer(recipe: Recipe) -> Scorer:
    if recipe.scorer not in SCORERS:
        raise RecipeError(f"recipe {recipe.name!r} uses the scorer {recipe.scorer!r}: upgrade orinspect")
    return SCORERS[recipe.scorer]


def _check_graph(bundle: Bundle, recipe: Recipe) -> GraphSpec:
    """The graph of a recipe. Raises RecipeError when it was fitted through another one."""
    spec = bundle.manifest.graph(recipe.precision, _scorer(recipe).head)
    if bundle.manifest.files[spec.file].sha256 != recipe.graph_sha256:
        raise RecipeError(f"recipe {recipe.name!r} was fitted through another {recipe.precision} graph; fit it again")
    return spec


def _open(bundle: Bundle, recipe: Recipe, opening: dict[str, Any]) -> Backend:
    spec = _check_graph(bundle, recipe)
    return open_backend(partial(bundle.read, spec.file), spec, arrays=_resident(recipe, bundle), **opening)


def _resident(recipe: Recipe, bundle: Bundle) -> dict[str, NDArray[Any]]:
    """What the backend gets of a recipe; scorers of the whole image leave the head's own inputs neutral."""
    scorer = _scorer(recipe)
    inputs = bundle.manifest.graph(recipe.precision, scorer.head).inputs[1:]
    return resident(recipe, inputs, scorer.head) if scorer.has_map else dict(neutral_arrays(inputs))
