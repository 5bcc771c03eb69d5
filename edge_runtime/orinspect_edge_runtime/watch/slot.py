"""The bounded place between the thread that reads frames and the loop that judges them."""

from __future__ import annotations

import threading
from collections import deque

from orinspect_edge_runtime.errors import ImageError
from orinspect_edge_runtime.preprocess import Frame

Item = Frame | ImageError


class Slot:
    """Holds one frame. keep_newest: a new frame replaces one that was not taken (a camera); else `put` waits (files)."""

    def __init__(self, *, keep_newest: bool) -> None:
        self.dropped = 0
        self.alarm = ""
        self._keep_newest = keep_newest
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = False

    def put(self, item: Item) -> bool:
        """Offer a frame, or the error that stands for one. False: nobody takes frames any more."""
        with self._changed:
            if self._keep_newest and self._items:
                self._items.clear()
                self.dropped += 1
            self._changed.wait_for(lambda: self._ended or not self._items)
            if not self._ended:
                self._items.append(item)
                self._changed.notify_all()
            return not self._ended

    def take(self, timeout_s: float) -> Item | None:
        """The frame in the slot; None when none came in time, or none will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or bool(self._items), timeout_s)
            if not self._items:
                return None
            self._changed.notify_all()
            return self._items.popleft()

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
    def empty(self) -> bool:
        """Ended, and the last frame was taken."""
        with self._changed:
            return self._ended and not self._items
