"""Which recipes there are, and another one for the loop: opened and verified here, taken over between two frames."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import CheckFailed
from orinspect_edge_runtime.fit import FitOptions
from orinspect_edge_runtime.recipe import check_name
from orinspect_edge_runtime.watch.http.choice import keep_choice
from orinspect_edge_runtime.watch.judge import Judge

if TYPE_CHECKING:
    from orinspect_edge_runtime.watch.loop import Watch

TAKEN_OVER_IN_S = 10.0


class Switch:
    """The loop's recipe, seen from outside of the loop."""

    def __init__(self, watch: Watch, folder: Path) -> None:
        self._watch, self._folder, self._lock = watch, folder, threading.Lock()

    @property
    def running(self) -> str:
        """Name of the recipe that judges."""
        return self._watch.judge.detector.recipe.name

    def names(self) -> list[str]:
        """Recipes of the bundle as it is on the disk now. Raises BundleError."""
        return sorted(Bundle.open(self._watch.config.recipe.bundle).manifest.recipes)

    def to(self, name: str) -> None:
        """Run the recipe from the loop's next frame on, and after a restart. Raises RecipeError, BundleError, CheckFailed.

        Naming the one that runs opens it again as it lies in the bundle.
        """
        config = self._watch.config
        with self._lock:
            judge = Judge(dataclasses.replace(config.recipe, name=check_name(name)), config.verdict)
            try:
                keep_choice(config, self._folder, name)
            except BaseException:
                judge.detector.close()
                raise
            self._watch.hand_over(judge)
            end = time.monotonic() + TAKEN_OVER_IN_S
            while self._watch.judge is not judge:
                if time.monotonic() > end:
                    raise CheckFailed("the loop did not take the recipe over in time: it hangs, or is ending")
                time.sleep(0.01)

    def fit_options(self) -> FitOptions:
        """Fit like the recipe that runs."""
        recipe = self._watch.judge.detector.recipe
        backend = self._watch.config.recipe.backend
        return FitOptions(recipe.scorer, recipe.precision, recipe.false_alarm, backend=backend)
