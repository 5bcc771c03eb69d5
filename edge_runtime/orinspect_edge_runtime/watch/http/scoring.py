"""Verdicts on pictures that somebody posts: by the recipe that runs, in a session of its own, beside the line.

They are no frames of the line: not counted, not in the journal.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from typing import TYPE_CHECKING, Any

from orinspect_edge_runtime.errors import ImageError
from orinspect_edge_runtime.preprocess import decode_frame
from orinspect_edge_runtime.watch.judge import Judge

if TYPE_CHECKING:
    from orinspect_edge_runtime.watch.loop import Watch

# A decoded picture of so many pixels takes 150 MB.
MOST_PIXELS = 50_000_000


class Scoring:
    """Opens its own backend at the first picture, so that the loop's one is never waited for; one picture at a time."""

    def __init__(self, watch: Watch) -> None:
        self._watch, self._lock = watch, threading.Lock()
        self._judge: Judge | None = None
        self._of = ""

    def verdict(self, content: bytes) -> dict[str, Any]:
        """The verdict on an image file's bytes. Raises ImageError: it cannot be decoded or judged."""
        with self._lock:
            judge = self._ready()
            frame = decode_frame(content, judge.detector.bundle.manifest.preprocess, "the image", MOST_PIXELS)
            event = judge(frame)
        if event.error:
            raise ImageError(event.error)
        names = ("outcome", "score", "threshold", "latency_ms", "recipe", "recipe_sha256", "graph_sha256")
        told = {name: value for name, value in json.loads(event.to_json()).items() if name in names}
        probability = judge.look.verdict.probability if judge.look else None
        return told | {"probability": probability, "width": frame.pixels.shape[1], "height": frame.pixels.shape[0]}

    def _ready(self) -> Judge:
        """A judge with the recipe that the loop has now."""
        name, of, _ = self._watch.judge.product.known
        if self._judge is None or self._of != of:
            config = self._watch.config
            rules = dataclasses.replace(config.verdict, debounce=1)
            opened = Judge(dataclasses.replace(config.recipe, name=name, also=(), threads=1), rules)
            if self._judge is not None:
                self._judge.close()
            self._judge, self._of = opened, of
        return self._judge
