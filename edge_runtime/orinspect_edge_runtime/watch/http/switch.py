"""Which recipes there are, and another one for the loop: opened and verified here, taken over between two frames."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import CheckFailed
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.recipe import check_name
from orinspect_edge_runtime.scorers import padim, patchcore
from orinspect_edge_runtime.tiling import Tiles
from orinspect_edge_runtime.watch.http.choice import keep_choice, with_name
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
        return self._watch.judge.product.recipe.name

    def names(self) -> list[str]:
        """Recipes of the bundle as it is on the disk now. Raises BundleError."""
        return sorted(Bundle.open(self._watch.config.recipe.bundle).manifest.recipes)

    def to(self, name: str) -> None:
        """Run the recipe from the loop's next frame on, and after a restart. Raises RecipeError, BundleError, CheckFailed.

        One that is open in the loop as the bundle has it now is taken at once; another one is opened and verified first.
        """
        with self._lock:
            bundle = Bundle.open(self._watch.config.recipe.bundle)
            file = bundle.recipe_file(check_name(name))
            if self._watch.judge.version(name) == bundle.manifest.files[file].sha256:
                keep_choice(self._watch.config, self._folder, name)
                self._watch.judge.use(name)
            else:
                self._open(name, keep=True)

    def take_over(self, name: str) -> None:
        """Have the loop open its recipes again if `name` is among them: it was edited."""
        with self._lock:
            if name in self._watch.judge.recipes:
                self._open(self.running, keep=False)

    def _open(self, name: str, *, keep: bool) -> None:
        config = self._watch.config
        judge = Judge(with_name(config.recipe, name), config.verdict)
        try:
            if keep:
                keep_choice(config, self._folder, name)
        except BaseException:
            judge.close()
            raise
        self._watch.hand_over(judge, config)
        end = time.monotonic() + TAKEN_OVER_IN_S
        while self._watch.judge is not judge:
            if self._watch.config is not config:
                raise CheckFailed("the configuration was read again at the same moment: try again")
            if time.monotonic() > end:
                raise CheckFailed("the loop did not take the recipe over in time: it hangs, or is ending")
            time.sleep(0.01)

    def fit_options(self) -> FitOptions:
        """Fit like the recipe that runs; where defects gave its threshold, which another part lacks, by its rate."""
        recipe = self._watch.judge.product.recipe
        return FitOptions(
            recipe.scorer,
            recipe.precision,
            recipe.false_alarm,
            backend=self._watch.config.recipe.backend,
            review_alarm=recipe.review_alarm,
            threshold=recipe.threshold_rule if recipe.stakes is None else "conformal",
            tiles="" if recipe.tiles is None else str(recipe.tiles),
            tile_overlap=Tiles.overlap if recipe.tiles is None else recipe.tiles.overlap,
            align=None if recipe.align is None else recipe.align.degrees,
            **padim.options_of(recipe.arrays),
            **patchcore.options_of(recipe.arrays),
        )
