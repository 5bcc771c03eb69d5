"""A sink's own thread and bounded queue: the loop puts events in and never waits."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

LOG = logging.getLogger("orinspect.watch")
GATHER_S = 0.2
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 10.0
T = TypeVar("T")


class Outbox(Generic[T]):
    """Hands events to `deliver` in order, in batches, again until it does not raise.

    delivered: events that `deliver` took. dropped: events that found the queue full. trouble: why it fails now.
    """

    def __init__(self, name: str, deliver: Callable[[Sequence[T]], None], *, queue: int, batch: int) -> None:
        self.name, self.delivered, self.dropped, self.trouble = name, 0, 0, ""
        self._deliver, self._most, self._batch = deliver, queue, batch
        self._queue: deque[T] = deque()
        self._changed, self._closing, self._deadline = threading.Condition(), False, 0.0
        self._done_at = -float("inf")
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def offer(self, event: T) -> bool:
        """Queue an event; False, and counted as dropped, when the queue is full. Never waits."""
        with self._changed:
            if len(self._queue) >= self._most:
                self.dropped += 1
                return False
            self._queue.append(event)
            if len(self._queue) in (1, self._batch):
                self._changed.notify()
            return True

    @property
    def queued(self) -> int:
        """Events that wait."""
        return len(self._queue)

    def close(self, deadline: float) -> int:
        """Deliver what is queued until the time.monotonic `deadline`. Returns the number of events left behind."""
        with self._changed:
            self._closing, self._deadline = True, deadline
            self._changed.notify_all()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return len(self._queue)

    def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        while batch := self._gathered():
            try:
                self._deliver(batch)
            except Exception as error:  # noqa: BLE001  whatever it was: said, counted, tried again
                if self._failed(error, wait_s):
                    return
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            else:
                self._done(batch)
                wait_s = FIRST_WAIT_S

    def _gathered(self) -> list[T]:
        """The next batch, left in the queue until it is delivered; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            # One that comes alone goes at once; those that follow closely are gathered.
            rest_s = self._done_at + GATHER_S - time.monotonic()
            self._changed.wait_for(lambda: self._closing or len(self._queue) >= self._batch, max(0.0, rest_s))
            return [self._queue[n] for n in range(min(self._batch, len(self._queue)))]

    def _done(self, batch: Sequence[T]) -> None:
        with self._changed:
            for _ in batch:
                self._queue.popleft()
            self.delivered += len(batch)
            self._done_at = time.monotonic()
            if self.trouble:
                LOG.info("%s works again", self.name)
            self.trouble = ""

    def _failed(self, error: Exception, wait_s: float) -> bool:
        """Note the failure and wait. True: it is time to give up."""
        told = " ".join(str(error).split()) or type(error).__name__
        if told != self.trouble:
            LOG.warning("%s fails: %s", self.name, told)
        self.trouble = told
        with self._changed:
            if not self._closing:
                self._changed.wait_for(lambda: self._closing, wait_s)
                return False
        time.sleep(FIRST_WAIT_S)
        return time.monotonic() > self._deadline
