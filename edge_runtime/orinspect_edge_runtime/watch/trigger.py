"""Hardware triggers: a frame is judged only when something asked for it, and every trigger gets exactly one event."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.watch.config import TriggerConfig
from orinspect_edge_runtime.watch.latency import Latency

# Triggers that wait for a frame, and frames that wait to be judged; a line has no more parts before one camera.
MOST_WAITING, MOST_LATE = 8, 1000


@dataclass(frozen=True)
class Shot:
    """One trigger. at: seconds since the epoch. recipe: to judge by, "" for the one in use. by: who asked."""

    at: float
    recipe: str
    by: str


class Trigger:
    """Takes triggers from any thread and gives each to the first frame that was captured at its time or later.

    recipes: names of the open ones. latency: from the trigger to the verdict. fired, bounced, missed: triggers that were
    taken; ignored because they followed another within debounce_ms; taken and not followed by a frame within late_s, or
    by one that could not be judged for too many others.
    """

    def __init__(self, config: TriggerConfig, recipes: Collection[str]) -> None:
        self.config, self.recipes, self.latency = config, recipes, Latency()
        self.fired = self.bounced = self.missed = 0
        self._waiting: deque[tuple[float, Shot]] = deque()
        self._late: deque[Shot] = deque(maxlen=MOST_LATE)
        self._last, self._lock = -float("inf"), threading.Lock()

    def fire(self, recipe: str | None = None, by: str = "call") -> bool:
        """Ask for the frame of this moment. False: ignored as a bounce. Raises InputError: no such recipe is open."""
        self.check(recipe or "")
        with self._lock:
            # Read under the lock: of two threads, the one let in last must not come with the earlier time.
            now, shot = time.monotonic(), Shot(time.time(), recipe or "", by)
            if now < self._last + self.config.debounce_ms / 1e3:
                self.bounced += 1
                return False
            self._last = now
            self.fired += 1
            self._waiting.append((now, shot))
            if len(self._waiting) > MOST_WAITING:
                self._miss(self._waiting.popleft()[1])
        return True

    def check(self, recipe: str) -> None:
        """Raises InputError when no recipe of that name is open; "" is the one in use."""
        if recipe and recipe not in self.recipes:
            raise InputError(f"no recipe {recipe!r} is open (open: {', '.join(self.recipes)}); add it to `also`")

    def match(self, captured_at: float) -> Shot | None:
        """The oldest trigger that waits for a frame of that time, seconds since the epoch; it waits no longer."""
        with self._lock:
            if self._waiting and self._waiting[0][1].at <= captured_at:
                return self._waiting.popleft()[1]
            return None

    def late(self) -> Iterator[Shot]:
        """Triggers that were missed and not told yet."""
        with self._lock:
            # Judged by the monotonic clock: one that was set back must not let a trigger wait for hours.
            while self._waiting and time.monotonic() > self._waiting[0][0] + self.config.late_s:
                self._miss(self._waiting.popleft()[1])
        while self._late:
            yield self._late.popleft()

    def drop(self, shot: Shot) -> None:
        """Its frame came and cannot be judged: it is missed after all."""
        with self._lock:
            self._miss(shot)

    def _miss(self, shot: Shot) -> None:
        self.missed += 1
        self._late.append(shot)

    def status(self) -> dict[str, object]:
        """The counts, and the latency."""
        counts = {"fired": self.fired, "bounced": self.bounced, "missed": self.missed}
        return {**counts, "latency_ms": self.latency.percentiles_ms()}
