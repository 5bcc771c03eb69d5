""" "This was fine": a part that was rejected or reviewed enters its recipe as a good one; and the way back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import Frame
from orinspect_edge_runtime.recipe import Edit, in_force
from orinspect_edge_runtime.recipe_edit import history, mark_good, undo
from orinspect_edge_runtime.watch.config import RecipeConfig
from orinspect_edge_runtime.watch.http.kept import KeptFrames
from orinspect_edge_runtime.watch.http.records import NotInJournal, Records


class Feedback:
    """Edits recipes of the line's bundle. config: tells the [recipe] that runs now, which SIGHUP may have changed.

    take_over: called with a recipe's name after each edit, so that the loop runs it.
    """

    def __init__(
        self,
        config: Callable[[], RecipeConfig],
        records: Records,
        kept: KeptFrames,
        take_over: Callable[[str], None],
    ) -> None:
        self._config, self._records, self._kept = config, records, kept
        self._take_over, self._lock = take_over, threading.Lock()

    def fine(self, event_id: str, note: str) -> Edit:
        """Mark a verdict's frame as good in the recipe that judged it.

        Raises NotInJournal: the verdict or its frame is not kept. InputError: it was marked before.
        """
        verdict = self._records.verdict(event_id)
        name, image = str(verdict["recipe"]), f"verdict {event_id}"
        with self._lock:
            pixels = self._kept.read(event_id)
            if pixels is None:
                raise NotInJournal("the frame of this verdict is not kept (any more): see kept_frames in [http]")
            if any(edit.image == image and edit.kind == "add" for edit in in_force(self.history(name))):
                raise InputError(f"this part was marked as good in recipe {name!r} before")
            # Through the backend that judges, on one core: the line goes first.
            config = self._config()
            with Detector.load(config.bundle, name, backend=config.backend, threads=1) as detector:
                edit = mark_good(config.bundle, name, Frame(pixels, image), note=note, detector=detector)
            self._take_over(name)
        return edit

    def undo(self, name: str) -> Edit:
        """Take back the last edit of a recipe that stands. Raises RecipeError when there is none."""
        with self._lock:
            edit = undo(self._config().bundle, name)
            self._take_over(name)
        return edit

    def history(self, name: str) -> tuple[Edit, ...]:
        """Every edit of a recipe, oldest first. Raises RecipeError."""
        return history(self._config().bundle, name)


def told(edit: Edit) -> dict[str, Any]:
    """An edit as JSON gives it: without the file that undo needs."""
    return {name: value for name, value in vars(edit).items() if name != "before"}
