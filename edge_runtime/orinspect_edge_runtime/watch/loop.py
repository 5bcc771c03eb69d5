"""The verdict loop and the life of the service: ready after golden, watchdog, reload, drain."""

from __future__ import annotations

import json
import logging
import queue
import signal
import time
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from orinspect_edge_runtime.errors import ImageError, OrinspectError
from orinspect_edge_runtime.notify import Notifier
from orinspect_edge_runtime.watch.alarms import Alarms
from orinspect_edge_runtime.watch.config import WatchConfig, read_config
from orinspect_edge_runtime.watch.drift_watch import DriftWatch
from orinspect_edge_runtime.watch.event import Event
from orinspect_edge_runtime.watch.gpio import gpio_lines
from orinspect_edge_runtime.watch.http.choice import chosen_recipe
from orinspect_edge_runtime.watch.judge import Judge
from orinspect_edge_runtime.watch.latency import Latency
from orinspect_edge_runtime.watch.reader import Reader
from orinspect_edge_runtime.watch.sinks import Sinks
from orinspect_edge_runtime.watch.slot import Job
from orinspect_edge_runtime.watch.sources import source_name
from orinspect_edge_runtime.watch.trigger import Trigger

if TYPE_CHECKING:
    from orinspect_edge_runtime.watch.http.service import Service

LOG = logging.getLogger("orinspect.watch")
TAKE_S = 0.25
STATUS_EVERY_S = 1.0
DRAIN_S = 1.7
# Tables that SIGHUP takes over.
RELOADED = ("recipe", "verdict")


class Watch:
    """One run of `orinspect watch`. Nothing runs before `run`, but the bundle was verified and golden reproduced."""

    def __init__(self, file: Path, config: WatchConfig) -> None:
        self._file, self.config = file, config
        self.judge = Judge(chosen_recipe(config), config.verdict)
        self.trigger = None if config.trigger is None else Trigger(config.trigger, self.judge.recipes)
        self.http: Service | None = self._open_http()
        self.sinks = Sinks(config, self.trigger)
        self.reader = Reader(config.source, self.judge.detector.bundle.manifest.preprocess, self.trigger)
        self.lines = [] if self.trigger is None else gpio_lines(self.trigger)
        self.latency, self.outcomes = Latency(), Counter[str]()
        self.alarms, self.drift = Alarms(source_name(config.source)), DriftWatch(self.judge, config.verdict)
        self._notifier, self._stop, self._reload = Notifier(), False, False
        self._told_at, self._began = 0.0, time.time()
        self._judges: queue.SimpleQueue[tuple[Judge, WatchConfig]] = queue.SimpleQueue()
        # The newest status: whoever asks from another thread reads this, and sees by its age when the loop hangs.
        self.told = self.status()

    def run(self) -> None:
        """Judge until the source ends or SIGTERM comes. Raises what ended the source, if it did not end by itself."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._signalled)
        self.reader.start()
        if self.http is not None:
            self.http.start()
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
        job = self.reader.slot.take(TAKE_S)
        event = None if job is None else self._judged(job)
        if self.trigger is not None:
            for late in self.trigger.late():
                self._judged(Job(ImageError("no frame could be judged in time for this trigger"), late))
        for alarm in self.alarms.changed(
            {"camera": self.reader.trouble, **self.drift.troubles}, self.judge.product.known
        ):
            self.sinks.offer(alarm)
        self._notifier.alive()
        self._tell()
        if self._reload:
            self._reload = False
            self.reload()
        while not self._judges.empty():
            judge, made_for = self._judges.get()
            if made_for is self.config:
                self._replace(judge, drift=self.drift)
            else:
                # The file was read again meanwhile: its rules must not be undone by a judge of the former ones.
                judge.close()
        return event

    def hand_over(self, judge: Judge, made_for: WatchConfig) -> None:
        """Have the loop judge with another one from its next frame on; called from any thread.

        made_for: the `config` that it was opened by. Once that is no longer the loop's, the judge is closed instead.
        """
        self._judges.put((judge, made_for))

    def _replace(self, judge: Judge, drift: DriftWatch | None = None) -> None:
        """Judge with another one. drift: whose monitors go on."""
        self.judge.close()
        self.drift.close()
        if self.trigger is not None:
            self.trigger.recipes = judge.recipes
        self.judge, self.drift = judge, DriftWatch(judge, self.config.verdict, drift)
        LOG.info("runs now: %s, recipe %s", judge.detector.description, judge.detector.recipe.name)

    def _open_http(self) -> Service | None:
        if self.config.http is None:
            return None
        from orinspect_edge_runtime.watch.http.service import Service

        return Service(self, self.config.http)

    def _judged(self, job: Job) -> Event:
        event = self.judge(job.item, job.shot)
        self.latency.add(event.latency_ms)
        self.outcomes[event.outcome] += 1
        if self.trigger is not None and job.shot is not None:
            self.trigger.latency.add((event.judged_at - job.shot.at) * 1e3)
        self.sinks.offer(event, job.item)
        if self.http is not None:
            self.http.window.show(self.judge.look, event)
        if self.judge.look is not None:
            self.drift.offer(event.recipe, self.judge.look.verdict, self.judge.look.fitted)
        return event

    def reload(self) -> bool:
        """Take over the recipe and the rules of the file as it is now; keep what runs, and say why, when they fail."""
        try:
            new = read_config(self._file)
            judge = Judge(chosen_recipe(replace(self.config, recipe=new.recipe)), new.verdict)
        except (OrinspectError, OSError) as error:
            LOG.error("not reloaded, the old configuration stays: %s", error)
            return False
        fixed = [
            f.name
            for f in fields(new)
            if f.name not in RELOADED and getattr(new, f.name) != getattr(self.config, f.name)
        ]
        if fixed:
            LOG.warning("changes of %s take effect after a restart", ", ".join(fixed))
        self.config = replace(self.config, recipe=new.recipe, verdict=new.verdict)
        self._replace(judge)
        LOG.info("reloaded: %s", judge.detector.description)
        return True

    def status(self) -> dict[str, Any]:
        """What `orinspect status` shows."""
        detector = self.judge.detector
        return {
            "began_at": self._began,
            "told_at": time.time(),
            "recipe": self.judge.product.recipe.name,
            "runs": detector.description,
            "frames": self.latency.count,
            "outcomes": dict(self.outcomes),
            "dropped_frames": self.reader.slot.dropped,
            "camera": self.reader.trouble,
            "alarms": self.alarms.active,
            "drift": self.drift.status(),
            "latency_ms": self.latency.percentiles_ms(),
            "trigger": self.trigger
            and {**self.trigger.status(), "lines": {one.path: one.trouble for one in self.lines}},
            "sinks": self.sinks.status(),
        }

    def _tell(self) -> None:
        if time.monotonic() < self._told_at + STATUS_EVERY_S:
            return
        self._told_at = time.monotonic()
        self.told = self.status()
        write_status(Path(self.config.status), self.told)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGHUP:
            self._reload = True
        else:
            # Only a flag: a handler must not take the locks that the loop may hold.
            self._stop = True

    def _end(self) -> None:
        # Everything ends within the same time, so what takes longest begins first.
        deadline = time.monotonic() + DRAIN_S
        self._notifier.stopping("draining the sinks")
        if self.http is not None:
            self.http.stop()
        self.drift.close()
        for line in self.lines:
            line.close()
        self.reader.stop(0.3)
        left = self.sinks.close(deadline)
        if self.http is not None:
            self.http.close(deadline)
        if left:
            LOG.error("%d verdicts could not be written before the end", left)
        write_status(Path(self.config.status), self.status())
        self.judge.close()


def write_status(file: Path, status: dict[str, object]) -> None:
    """Publish the status by rename, without fsync: it is of use to the living only, and a slow disk must not stall."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_text(json.dumps(status, indent=2))
        partial.replace(file)
    except OSError as error:
        LOG.debug("status: %s", error)
