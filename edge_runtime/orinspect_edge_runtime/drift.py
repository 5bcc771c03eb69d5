"""Drift: tells from the pictures of a running line whether its good parts still look like those the recipe was fitted on.

    monitor = DriftMonitor(recipe, preprocess)          # one a recipe; how frames are made for the model
    state = monitor.update(verdict.score, verdict.embedding, frame.pixels)
    if state.alarm: print(state.reason)                 # stays on until reset()
    saved = monitor.save()                              # plain values for json.dumps
    DriftMonitor(recipe, preprocess).load(saved)

Each part (scores, embedding, appearance, light; see drift_reference.py) keeps a running mean of K numbers, so memory is
flat and a frame costs one product of D x K. A threshold promises its false-alarm rate only while this monitor is quiet.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.appearance import STATISTICS, appearance
from orinspect_edge_runtime.drift_reference import LIGHT, PARTS, normal_score, read_part, statistic
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.features import assign_groups
from orinspect_edge_runtime.preprocess import Pixels, PreprocessSpec, fit_to_model
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.threshold import p_values

Doubles = NDArray[np.float64]
# What an alarm says of the appearance is of the last few images, and leaves out what changed by less than 5 %.
SOON_FORGOTTEN = 0.25
WORTH_TELLING = 0.05


@dataclass(frozen=True)
class DriftState:
    """What the monitor says after an image.

    images: seen since the start or the last reset. alarm: stays on until the reset. reason: what the alarm rests on, in
    words, empty without one; it grows as further parts reach their limits. levels: of each part at hand, its statistic
    over its limit now (1 and more is an alarm). alarmed_at: number of the image (from 1) that set the alarm off, or 0.
    """

    images: int
    alarm: bool
    reason: str
    levels: dict[str, float]
    alarmed_at: int


class DriftMonitor:
    """Watches the images of one recipe. A recipe of few images, or of an earlier version, has fewer parts or none.

    preprocess: of the recipe's bundle. The appearance is that of the frame that enters the graph, so a picture counts
    the same whether it came whole, as a part of a JPEG's size or as a frame that was kept.
    """

    def __init__(self, recipe: Recipe, preprocess: PreprocessSpec) -> None:
        found = {name: read_part(recipe.arrays, name) for name in PARTS}
        self._parts = {name: part for name, part in found.items() if part is not None}
        self._recipe, self._preprocess = recipe, preprocess
        self.reset()

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that the recipe has, of PARTS."""
        return tuple(self._parts)

    def reset(self) -> None:
        """Forget everything seen: after the cause was mended, or the recipe fitted again."""
        self._running: dict[str, Doubles] = {name: np.zeros(p.axes.shape[1]) for name, p in self._parts.items()}
        self._looks = np.zeros(len(STATISTICS))
        self._images, self._alarmed_at = 0, 0
        self._told: dict[str, str] = {}

    def update(self, score: float, embedding: NDArray[Any], pixels: Pixels | None = None) -> DriftState:
        """Take in an image: its score, its embedding float32 [E] and, for the appearance, its pixels [h, w, 3]
        of any size.

        Defective parts may be among them; more of them than usual are drift too. Raises InputError for values that are
        not finite: the running means would never recover from them.
        """
        looks = None if pixels is None else appearance(fit_to_model(pixels, self._preprocess))
        return self.update_with(score, embedding, looks)

    def update_with(
        self, score: float, embedding: NDArray[Any], looks: NDArray[np.float32] | None = None
    ) -> DriftState:
        """`update` with the figures of `appearance` at hand."""
        if not (np.isfinite(score) and np.isfinite(embedding).all()):
            raise InputError("drift: a score or an embedding is not finite; the model or its precision is broken")
        group = assign_groups(self._recipe.arrays, embedding[None])
        calibration = self._recipe.calibration_scores
        p_value = float(p_values(calibration, np.array([score]), ties="middle")[0]) if "scores" in self._parts else 0.5
        vectors: dict[str, NDArray[Any] | None] = {"scores": np.array([normal_score(p_value)]), "embedding": embedding}
        vectors |= {"appearance": looks, "light": looks}
        for name, part in self._parts.items():
            vector = vectors[name]
            if vector is not None:
                moved = part.coordinates(vector[None], group)[0] - self._running[name]
                self._running[name] += PARTS[name].forgetting * moved
        if looks is not None and "appearance" in self._parts:
            usual = self._parts["appearance"].mean[group[0]]
            self._looks += SOON_FORGOTTEN * (looks - usual - self._looks)
        self._images += 1
        self._judge()
        return self.state

    @property
    def state(self) -> DriftState:
        """The state after the last image."""
        reason = "; ".join(self._told[name] for name in PARTS if name in self._told)
        return DriftState(self._images, bool(self._told), reason, self._levels(), self._alarmed_at)

    def _levels(self) -> dict[str, float]:
        found = {name: statistic(self._running[name], PARTS[name].forgetting) for name in self._parts}
        return {name: float(found[name] / part.limit) for name, part in self._parts.items()}

    def _judge(self) -> None:
        """Set the alarm off when a part reaches its limit; a part that does so later adds its words to the reason."""
        words = {
            "scores": self._scores_in_words,
            "embedding": lambda: "the pictures differ from the good ones in what the encoder sees",
            "appearance": self._appearance_in_words,
            "light": self._light_in_words,
        }
        for name, level in self._levels().items():
            if level >= 1 and name not in self._told:
                self._alarmed_at = self._alarmed_at or self._images
                self._told[name] = words[name]()

    def _scores_in_words(self) -> str:
        risen = "risen" if self._running["scores"][0] > 0 else "fallen"
        return f"the scores have {risen} against those of the good parts the recipe was fitted on"

    def _appearance_in_words(self) -> str:
        """The statistics that changed by WORTH_TELLING or more, or the one that changed most."""
        least = min(WORTH_TELLING, float(np.abs(self._looks).max()))
        told = [
            f"{STATISTICS[name][0 if change > 0 else 1]} ({name} {np.expm1(change):+.0%})"
            for name, change in zip(STATISTICS, self._looks, strict=True)
            if abs(change) >= least
        ]
        return "the pictures have become " + ", ".join(told)

    def _light_in_words(self) -> str:
        """The running mean in units of the light's logarithm; it lags behind a change."""
        unit = float(LIGHT @ self._parts["light"].axes[:, 0])
        change = float(np.expm1(self._running["light"][0] / unit))
        return f"there is {'more' if change > 0 else 'less'} light, by {abs(change):.0%} or more"

    def save(self) -> dict[str, Any]:
        """The state as plain values for json.dumps."""
        return {
            "recipe": self._fingerprint(),
            "images": self._images,
            "told": dict(self._told),
            "alarmed_at": self._alarmed_at,
            "looks": self._looks.tolist(),
            "running": {name: mean.tolist() for name, mean in self._running.items()},
        }

    def load(self, saved: dict[str, Any]) -> DriftMonitor:
        """Go on from what `save` gave; returns itself. Raises InputError for another recipe's state or a damaged one."""
        try:
            running = {name: np.array(mean, np.float64) for name, mean in saved["running"].items()}
            looks = np.array(saved["looks"], np.float64)
            shapes = {name: mean.shape for name, mean in running.items()}
            if saved["recipe"] != self._fingerprint() or shapes != {n: m.shape for n, m in self._running.items()}:
                raise ValueError("of another recipe")
            if looks.shape != self._looks.shape or not all(np.isfinite(m).all() for m in (looks, *running.values())):
                raise ValueError("not finite")
            images, alarmed_at = int(saved["images"]), int(saved["alarmed_at"])
            told = {name: str(saved["told"][name]) for name in PARTS if name in saved["told"]}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"a drift state that cannot be taken up ({error}); start without it") from error
        self._running, self._looks = running, looks
        self._images, self._alarmed_at, self._told = images, alarmed_at, told
        return self

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(self._recipe.calibration_scores).tobytes())
        for part in self._parts.values():
            digest.update(part.mean.tobytes() + part.axes.tobytes())
        return digest.hexdigest()[:16]
