"""The drift monitors of a line, one a recipe, in a thread of their own: the loop does not wait for their arithmetic."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Sequence

from orinspect_edge_runtime.drift import DriftMonitor
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import Pixels
from orinspect_edge_runtime.tiling import view_of
from orinspect_edge_runtime.verdict import Verdict
from orinspect_edge_runtime.watch.config import VerdictConfig
from orinspect_edge_runtime.watch.judge import Judge
from orinspect_edge_runtime.watch.outbox import Outbox

LOG = logging.getLogger("orinspect.watch")
# A line drifts over minutes: of a fast camera's frames these are enough, and the rest of the time is the detector's.
MOST_PER_S = 2.0
Seen = tuple[str, Verdict, Pixels]


class DriftWatch:
    """Monitors of the recipes that have a drift reference.

    before: one that has ended; its monitors are gone on with where the recipe was only edited. Without it all of them
    begin afresh, as after SIGHUP.
    """

    def __init__(self, judge: Judge, rules: VerdictConfig, before: DriftWatch | None = None) -> None:
        recipes = {name: product.recipe for name, product in judge.products.items()} if rules.drift else {}
        manifest = judge.detector.bundle.manifest
        made = {name: DriftMonitor(found, view_of(found.tiles, manifest).spec) for name, found in recipes.items()}
        self._monitors = {name: monitor for name, monitor in made.items() if monitor.parts}
        earlier = {} if before is None else before._monitors
        for name in self._monitors.keys() & earlier.keys():
            with contextlib.suppress(InputError):
                # Refused when the reference is another one: the recipe was fitted again.
                self._monitors[name].load(earlier[name].save())
        self._box = Outbox[Seen]("drift", self._update, queue=2, batch=1)
        self._next = dict.fromkeys(self._monitors, 0.0)
        self.troubles = {f"drift of {name}": monitor.state.reason for name, monitor in self._monitors.items()}

    def offer(self, recipe: str, verdict: Verdict, pixels: Pixels) -> None:
        """Show a judged frame to its recipe's monitor, or leave it out. Never waits."""
        now = time.monotonic()
        if now >= self._next.get(recipe, now + 1):
            self._next[recipe] = now + 1 / MOST_PER_S
            self._box.offer((recipe, verdict, pixels))

    def close(self) -> None:
        """End the thread."""
        self._box.close(time.monotonic() + 0.5)

    def status(self) -> dict[str, object]:
        """Each monitor's state, by recipe."""
        return {name: dataclasses.asdict(monitor.state) for name, monitor in self._monitors.items()}

    def _update(self, seen: Sequence[Seen]) -> None:
        for recipe, verdict, pixels in seen:
            try:
                state = self._monitors[recipe].update(verdict.score, verdict.embedding, pixels)
            except InputError as error:
                LOG.warning("%s", error)
                continue
            # Replaced as a whole: the loop reads it meanwhile.
            self.troubles = self.troubles | {f"drift of {recipe}": state.reason}
