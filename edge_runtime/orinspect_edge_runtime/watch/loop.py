"""The verdict loop and the life of the service: ready after golden, watchdog, reload, drain."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import FrameType

from orinspect_edge_runtime.errors import OrinspectError
from orinspect_edge_runtime.notify import Notifier
from orinspect_edge_runtime.watch.config import WatchConfig, read_config
from orinspect_edge_runtime.watch.event import Event
from orinspect_edge_runtime.watch.judge import Judge
from orinspect_edge_runtime.watch.latency import Latency
from orinspect_edge_runtime.watch.reader import Reader
from orinspect_edge_runtime.watch.sinks import Sinks

LOG = logging.getLogger("orinspect.watch")
TAKE_S = 0.25
STATUS_EVERY_S = 1.0
DRAIN_S = 1.7


class Watch:
    """One run of `orinspect watch`. Nothing runs before `run`, but the bundle was verified and golden reproduced."""

    def __init__(self, file: Path, config: WatchConfig) -> None:
        self._file, self.config = file, config
        self.judge = Judge(config.recipe, config.verdict)
        self.sinks = Sinks(config)
        self.reader = Reader(config.source, self.judge.detector.bundle.manifest.preprocess)
        self.latency, self.outcomes = Latency(), Counter[str]()
        self._notifier, self._stop, self._reload = Notifier(), False, False
        self._told_at, self._began, self._trouble = 0.0, time.time(), ""

    def run(self) -> None:
        """Judge until the source ends or SIGTERM comes. Raises what ended the source, if it did not end by itself."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._signalled)
        self.reader.start()
        self._notifier.ready("golden reproduced")
        LOG.info("watching %s", self.judge.detector.description)
        try:
            while not self._stop and not self.reader.slot.empty:
                self.step()
        finally:
            self._end()
        if self.reader.error is not None:
            raise self.reader.error

    def step(self) -> Event | None:
        """Judge one frame, or wait a moment for it; then the signs of life."""
        item = self.reader.slot.take(TAKE_S)
        event = None if item is None else self.judge(item)
        if event is not None:
            self.latency.add(event.latency_ms)
            self.outcomes[event.outcome] += 1
            self.sinks.offer(event)
        self._notifier.alive()
        self._tell()
        if self._reload:
            self._reload = False
            self.reload()
        return event

    def reload(self) -> bool:
        """Take over the recipe and the rules of the file as it is now; keep what runs, and say why, when they fail."""
        try:
            new = read_config(self._file)
            judge = Judge(new.recipe, new.verdict)
        except (OrinspectError, OSError) as error:
            LOG.error("not reloaded, the old configuration stays: %s", error)
            return False
        rest = ("source", "journal", "jsonl", "mqtt", "webhook", "status")
        fixed = [name for name in rest if getattr(new, name) != getattr(self.config, name)]
        if fixed:
            LOG.warning("changes of %s take effect after a restart", ", ".join(fixed))
        self.judge.detector.close()
        self.judge, self.config = judge, replace(self.config, recipe=new.recipe, verdict=new.verdict)
        LOG.info("reloaded: %s", judge.detector.description)
        return True

    def status(self) -> dict[str, object]:
        """What `orinspect status` shows."""
        detector = self.judge.detector
        return {
            "began_at": self._began,
            "told_at": time.time(),
            "recipe": detector.recipe.name,
            "runs": detector.description,
            "frames": self.latency.count,
            "outcomes": dict(self.outcomes),
            "dropped_frames": self.reader.slot.dropped,
            "camera": self.reader.trouble,
            "latency_ms": {f"p{p}": round(self.latency.percentile_ms(p), 3) for p in (50, 90, 99)},
            "sinks": self.sinks.status(),
        }

    def _tell(self) -> None:
        if time.monotonic() < self._told_at + STATUS_EVERY_S:
            return
        self._told_at = time.monotonic()
        if self.reader.trouble != self._trouble:
            self._trouble = self.reader.trouble
            LOG.warning("camera: %s", self._trouble or "well again")
        write_status(Path(self.config.status), self.status())

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGHUP:
            self._reload = True
        else:
            # Only a flag: a handler must not take the locks that the loop may hold.
            self._stop = True

    def _end(self) -> None:
        self._notifier.stopping("draining the sinks")
        self.reader.stop(0.1)
        left = self.sinks.close(time.monotonic() + DRAIN_S)
        if left:
            LOG.error("%d verdicts could not be written before the end", left)
        write_status(Path(self.config.status), self.status())
        self.judge.detector.close()


def write_status(file: Path, status: dict[str, object]) -> None:
    """Publish the status by rename, without fsync: it is of use to the living only, and a slow disk must not stall."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_text(json.dumps(status, indent=2))
        partial.replace(file)
    except OSError as error:
        LOG.debug("status: %s", error)
