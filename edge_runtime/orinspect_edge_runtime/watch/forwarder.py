"""Delivers the journal's rows elsewhere, in order, each again until it was taken: the journal is the spill.

How far a sink came is written in the journal, so neither a dead broker nor a restart loses a verdict. A receiver may get
one twice (it was taken, then the power went); the event id tells.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from orinspect_edge_runtime.watch.journal import opened

LOG = logging.getLogger("orinspect.watch")
POLL_S = 0.2
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 10.0
BATCH = 30
Payloads = list[str]


class Forwarder:
    """A thread that hands rows (JSON texts) to `deliver`, which raises when it cannot. delivered, trouble: as in Outbox."""

    def __init__(self, name: str, journal: Path, deliver: Callable[[Payloads], None]) -> None:
        self.name, self.delivered, self.dropped, self.trouble = name, 0, 0, ""
        self._journal, self._deliver = journal, deliver
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self, deadline: float) -> int:
        """End it, at the latest at the time.monotonic `deadline`. 0: what was not delivered waits in the journal."""
        self._closing.set()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return 0

    def _run(self) -> None:
        wait_s, greeted = FIRST_WAIT_S, False
        while True:
            last = self._closing.is_set()
            try:
                if not greeted:
                    # A receiver that must be connected is so before the first verdict.
                    self._deliver([])
                    greeted = True
                moved = self._forward()
                wait_s, self.trouble = FIRST_WAIT_S, ""
            except Exception as error:  # noqa: BLE001  whatever it was: said, and tried again
                self._failed(error)
                self._closing.wait(wait_s)
                moved, wait_s = False, min(2 * wait_s, LONGEST_WAIT_S)
            if last and not moved:
                return
            if not moved:
                self._closing.wait(POLL_S)

    def _forward(self) -> bool:
        """Deliver the next rows; False: there are none."""
        with opened(self._journal) as database:
            seq = _position(database, self.name)
            query = "SELECT seq, json FROM event WHERE seq > ? ORDER BY seq LIMIT ?"
            rows = database.execute(query, (seq, BATCH)).fetchall()
            if not rows:
                return False
            self._deliver([row[1] for row in rows])
            with database:
                database.execute("INSERT OR REPLACE INTO delivered VALUES (?, ?)", (self.name, rows[-1][0]))
        self.delivered += len(rows)
        return True

    def _failed(self, error: Exception) -> None:
        told = " ".join(str(error).split()) or type(error).__name__
        if told != self.trouble:
            LOG.warning("%s fails: %s", self.name, told)
        self.trouble = told


def _position(database: sqlite3.Connection, name: str) -> int:
    row = database.execute("SELECT seq FROM delivered WHERE sink = ?", (name,)).fetchone()
    return int(row[0]) if row else 0
