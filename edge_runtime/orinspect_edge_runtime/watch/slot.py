"""The bounded place between the thread that reads frames and the loop that judges them."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from orinspect_edge_runtime.errors import ImageError
from orinspect_edge_runtime.preprocess import Frame
from orinspect_edge_runtime.watch.trigger import Shot

Item = Frame | ImageError


@dataclass(frozen=True)
class Job:
    """What is judged: a frame, or the error that stands for one, and the trigger that asked for it."""

    item: Item
    shot: Shot | None = None


class Slot:
    """Holds `size` frames. keep_newest: a new one replaces the oldest of them (a camera); else `put` waits (files)."""

    def __init__(self, *, keep_newest: bool, size: int = 1) -> None:
        self.dropped = 0
        self.alarm = ""
        self._keep_newest, self._size = keep_newest, size
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._ended = False

    def put(self, job: Job) -> None:
        """Offer a job; it goes nowhere once the slot has ended."""
        with self._changed:
            if self._keep_newest and len(self._jobs) >= self._size:
                self._jobs.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: self._ended or len(self._jobs) < self._size)
            if not self._ended:
                self._jobs.append(job)
                self._changed.notify_all()

    def take(self, timeout_s: float) -> Job | None:
        """The frame in the slot; None when none came in time, or none will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or bool(self._jobs), timeout_s)
            if not self._jobs:
                return None
            self._changed.notify_all()
            return self._jobs.popleft()

    def end(self) -> None:
        """No more frames; what lies in the slot can still be taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def pause(self, seconds: float) -> bool:
        """Wait, but not beyond the end. False: it has ended."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._ended, seconds)

    @property
    def ended(self) -> bool:
        """Whether no more frames will be put."""
        return self._ended

    @property
    def full(self) -> bool:
        """Whether the next job would have to wait, or replace one."""
        with self._changed:
            return len(self._jobs) >= self._size

    @property
    def empty(self) -> bool:
        """Ended, and the last frame was taken."""
        with self._changed:
            return self._ended and not self._jobs
