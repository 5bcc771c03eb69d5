"""What the loop shows to whoever looks. It hands over references and never waits; pictures are drawn elsewhere."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from orinspect_edge_runtime.verdict import REJECT, REVIEW
from orinspect_edge_runtime.watch.event import Event
from orinspect_edge_runtime.watch.http.kept import KeptFrame
from orinspect_edge_runtime.watch.http.teach import Teach
from orinspect_edge_runtime.watch.judge import Look
from orinspect_edge_runtime.watch.outbox import Outbox

POINTS = 600


class Point(NamedTuple):
    """One verdict as the chart draws it. number: counts the verdicts of this run, from 1."""

    number: int
    judged_at: float
    outcome: str
    score: float | None
    threshold: float
    latency_ms: float
    id: str
    error: str


@dataclass(frozen=True)
class Sight:
    """The newest picture that was judged."""

    number: int
    look: Look
    outcome: str


class Window:
    """The newest picture and the last POINTS verdicts."""

    def __init__(self, kept: Outbox[KeptFrame], teach: Teach) -> None:
        self.count = 0
        self.newest: Sight | None = None
        self._points: deque[Point] = deque(maxlen=POINTS)
        self._kept, self._teach = kept, teach

    def show(self, look: Look | None, event: Event) -> None:
        """Take one verdict; called by the loop. look: None when the frame could not be judged."""
        e = event
        self._points.append(
            Point(self.count + 1, e.judged_at, e.outcome, e.score, e.threshold, e.latency_ms, e.id, e.error)
        )
        self.count += 1
        if look is None:
            return
        self.newest = Sight(self.count, look, e.outcome)
        if e.outcome in (REVIEW, REJECT):
            self._kept.offer(KeptFrame(e.id, look.fitted))
        self._teach.offer(look.fitted)

    def since(self, number: int) -> list[Point]:
        """The verdicts after that number, as far as they are kept."""
        # A copy in one step: the loop goes on appending meanwhile.
        points = self._points.copy()
        fresh = points[-1].number - number if points else 0
        return list(points)[-fresh:] if fresh > 0 else []
