"""The journal against kill -9, a full disk and its own age."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from orinspect_edge_runtime.watch.config import JournalConfig
from orinspect_edge_runtime.watch.event import Event
from orinspect_edge_runtime.watch.journal import Journal, opened, tidy
from orinspect_edge_runtime.watch.outbox import Outbox
from orinspect_edge_runtime.watch.sinks import JsonLines


def event(at: float = 0.0, **fields: object) -> Event:
    values = ("test", 0, "reject", 2.0, 1.5, 3.0, "default", "a" * 64, "b" * 64)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Event(
        uuid.uuid4().hex,
        at,
        at or time.time(),
        *values,
        picture=picture,
        anomaly_map=picture[..., 0].astype(np.float32),
        **fields,
    )  # type: ignore[arg-type]


def ids(path: Path) -> list[str]:
    with opened(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [row[0] for row in database.execute("SELECT id FROM event ORDER BY seq")]


WRITER = """
import sys, time, uuid
from pathlib import Path
from orinspect_edge_runtime.watch.config import JournalConfig
from orinspect_edge_runtime.watch.event import Event
from orinspect_edge_runtime.watch.journal import Journal
journal = Journal(JournalConfig(sys.argv[1]))
while True:
    events = [Event(uuid.uuid4().hex, 0, time.time(), "x", 0, "accept", 1.0, 2.0, 3.0, "r", "a", "b") for _ in range(7)]
    journal.write(events)
    print(*(e.id for e in events), flush=True)
"""


def test_twenty_kills_lose_no_acknowledged_event(tmp_path: Path) -> None:
    file, acknowledged, chance = tmp_path / "j.sqlite", list[str](), random.Random(0)
    for _ in range(20):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            first = child.stdout.readline()
            time.sleep(chance.uniform(0, 0.05))
            child.kill()
            # A line that the kill cut off was not told to anyone whole.
            told = (first + child.stdout.read()).splitlines(keepends=True)
            acknowledged += [one for line in told if line.endswith("\n") for one in line.split()]
    found = ids(file)
    assert len(acknowledged) >= 20 * 7
    assert set(acknowledged) <= set(found)
    assert len(set(found)) == len(found)


def test_a_repeated_batch_is_written_once(tmp_path: Path) -> None:
    journal, events = Journal(JournalConfig(str(tmp_path / "j.sqlite"))), [event(), event()]
    journal.write(events)
    journal.write(events)
    assert ids(tmp_path / "j.sqlite") == [e.id for e in events]


def test_a_full_disk_loses_nothing_that_was_acknowledged(small_disk: Path) -> None:
    journal, acknowledged = Journal(JournalConfig(str(small_disk / "j.sqlite"))), list[str]()
    with pytest.raises(sqlite3.Error):
        for _ in range(10_000):
            batch = [event() for _ in range(5)]
            journal.write(batch)
            acknowledged += [e.id for e in batch]
    journal.close()
    assert acknowledged
    with sqlite3.connect(f"file:{small_disk / 'j.sqlite'}?mode=ro", uri=True) as database:
        assert {row[0] for row in database.execute("SELECT id FROM event")} >= set(acknowledged)


def test_a_sink_waits_for_room_on_the_disk(small_disk: Path) -> None:
    """The disk is full, then room is made: every event that was queued arrives, and no line is torn."""
    filler, file = small_disk / "filler", small_disk / "verdicts.jsonl"
    with pytest.raises(OSError), filler.open("wb") as full:
        full.write(bytes(2**21))
    box = Outbox("jsonl", JsonLines(file).write, queue=50, batch=10)
    offered = [event() for _ in range(60)]
    taken = [box.offer(one) for one in offered]
    assert (sum(taken), box.dropped) == (50, 10)
    end = time.monotonic() + 60
    while not box.trouble and time.monotonic() < end:
        time.sleep(0.02)
    assert "space" in box.trouble or "full" in box.trouble
    filler.unlink()
    assert box.close(time.monotonic() + 60) == 0
    assert file.read_text().splitlines() == [e.to_json() for e in offered[:50]]


def test_old_rows_go_by_age_number_and_size(tmp_path: Path) -> None:
    file = tmp_path / "j.sqlite"
    journal, day = Journal(JournalConfig(str(file), max_age_days=36_500)), 86_400.0
    events = [event(at=1000 * day + n) for n in range(300)]
    with opened(file) as database:
        journal.write([event(at=1.0), *events])
        tidy(database, JournalConfig(max_age_days=2), now=1001 * day)
        assert ids(file) == [e.id for e in events]
        tidy(database, JournalConfig(max_age_days=2, max_rows=200), now=1001 * day)
        assert ids(file) == [e.id for e in events[100:]]
        tidy(database, JournalConfig(max_age_days=2, max_mib=1), now=1001 * day)
        left = ids(file)
        assert 0 < len(left) < 200
        assert left == [e.id for e in events[-len(left) :]]
