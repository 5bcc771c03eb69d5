"""Server-sent events: verdicts as they come, at most ten messages a second, and the state of everything once a second."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool

from orinspect_edge_runtime.watch.http.window import Window

EVERY_S, STATUS_EVERY_S = 0.1, 1.0
# Verdicts that a new viewer is given for its chart.
HISTORY = 300


class Stream:
    """Messages for one viewer after another; they end when `closing` says so."""

    def __init__(self, window: Window, status: Callable[[], dict[str, Any]], closing: Callable[[], bool]) -> None:
        self._window, self._status, self._closing = window, status, closing

    async def messages(self, last: int | None) -> AsyncIterator[str]:
        """Text of the events. last: number of the verdict that the viewer saw last, None: a new viewer."""
        # A number from before a restart says nothing about this run.
        number = last if last is not None and last <= self._window.count else max(0, self._window.count - HISTORY)
        next_status = 0.0
        yield "retry: 1000\n\n"
        while not self._closing():
            if points := self._window.since(number):
                number = points[-1].number
                yield message("verdicts", [tuple(point) for point in points], number)
            if time.monotonic() >= next_status:
                next_status = time.monotonic() + STATUS_EVERY_S
                yield message("status", await run_in_threadpool(self._status))
            await asyncio.sleep(EVERY_S)


def message(kind: str, content: Any, number: int | None = None) -> str:
    """One event of the text/event-stream format."""
    numbered = "" if number is None else f"id: {number}\n"
    return f"event: {kind}\n{numbered}data: {json.dumps(content, allow_nan=False)}\n\n"
