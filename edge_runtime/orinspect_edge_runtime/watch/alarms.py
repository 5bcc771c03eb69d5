"""What is wrong with the line itself: each trouble is an event when it begins and when it is over."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator

from orinspect_edge_runtime.watch.event import ALARM, CLEAR, Event

LOG = logging.getLogger("orinspect.watch")


class Alarms:
    """Turns troubles, told again and again, into events at their changes. active: what is wrong now, by its name."""

    def __init__(self, source: str) -> None:
        self.active: dict[str, str] = {}
        self._source = source

    def changed(self, troubles: dict[str, str], known: tuple[str, str, str]) -> Iterator[Event]:
        """Events for what began or ended since the last call. troubles: text by name, empty: well.

        Only the text before a colon counts as a change: `lost: refused` and `lost: silent` are one alarm.
        """
        for name, told in {**dict.fromkeys(self.active, ""), **troubles}.items():
            before = self.active.get(name, "")
            if told.partition(":")[0] == before.partition(":")[0]:
                continue
            if told:
                self.active[name] = told
            else:
                del self.active[name]
            LOG.log(logging.WARNING if told else logging.INFO, "%s: %s", name, told or "well again")
            yield self._event(ALARM if told else CLEAR, f"{name} {told or before}", known)

    def _event(self, outcome: str, text: str, known: tuple[str, str, str]) -> Event:
        now = time.time()
        return Event(uuid.uuid4().hex, now, now, self._source, -1, outcome, None, 0.0, 0.0, *known, text)
