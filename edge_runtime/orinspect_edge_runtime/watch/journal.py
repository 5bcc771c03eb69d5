"""The journal: every verdict in SQLite, and the only store that other deliveries start from.

WAL with synchronous=FULL: a committed row survives a power cut (in NORMAL mode it does not). Commits are batched, since
each one waits for the disk.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.overlay import heat_map
from orinspect_edge_runtime.picture_file import to_jpeg
from orinspect_edge_runtime.watch.config import JournalConfig
from orinspect_edge_runtime.watch.event import Event

SCHEMA = """
CREATE TABLE IF NOT EXISTS event (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, judged_at REAL NOT NULL, outcome TEXT NOT NULL,
  score REAL, threshold REAL NOT NULL, recipe TEXT NOT NULL, recipe_sha256 TEXT NOT NULL, graph_sha256 TEXT NOT NULL,
  json TEXT NOT NULL, picture BLOB, map BLOB);
CREATE INDEX IF NOT EXISTS event_by_outcome ON event (outcome, seq);
CREATE TABLE IF NOT EXISTS delivered (sink TEXT PRIMARY KEY, seq INTEGER NOT NULL);
"""
ROW = "INSERT OR IGNORE INTO event VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# Old rows go every so many commits.
TIDY_EVERY = 100


class Journal:
    """Writes events; `write` is called from one thread, which opens its connection there."""

    def __init__(self, config: JournalConfig) -> None:
        self._config, self._path, self._commits = config, Path(config.path), 0
        self._database: sqlite3.Connection | None = None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with opened(self._path) as database:
                database.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{self._path}: cannot be used as a journal ({error})") from error

    def write(self, events: Sequence[Event]) -> None:
        """Commit the events, all or none; an id that is there already is left alone. Raises sqlite3.Error."""
        rows = [_row(event) for event in events]
        if self._database is None:
            self._database = connect(self._path)
        try:
            with self._database:
                self._database.executemany(ROW, rows)
            self._commits += 1
            if self._commits % TIDY_EVERY == 1:
                tidy(self._database, self._config)
        except sqlite3.Error:
            # Opened afresh next time: after a full or torn disk the old connection's view need not hold.
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; the next `write` opens another one."""
        if self._database is not None:
            self._database.close()
            self._database = None


def _row(e: Event) -> tuple[object, ...]:
    hashes = (e.recipe, e.recipe_sha256, e.graph_sha256)
    hot = None if e.anomaly_map is None else heat_map(e.anomaly_map, e.threshold)
    pictures = (None if pixels is None else to_jpeg(Image.fromarray(pixels)) for pixels in (e.picture, hot))
    return (e.id, e.judged_at, e.outcome, e.score, e.threshold, *hashes, e.to_json(), *pictures)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of the calling thread, closed afterwards."""
    database = connect(path)
    try:
        yield database
    finally:
        database.close()


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose commits survive a power cut."""
    database = sqlite3.connect(path, timeout=10, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    return database


def tidy(database: sqlite3.Connection, config: JournalConfig, now: float | None = None) -> None:
    """Remove what is older than max_age_days, beyond max_rows, or, from the oldest on, what is over max_mib."""
    oldest = (time.time() if now is None else now) - config.max_age_days * 86_400
    with database:
        database.execute("DELETE FROM event WHERE judged_at < ?", (oldest,))
        database.execute("DELETE FROM event WHERE seq <= (SELECT max(seq) FROM event) - ?", (config.max_rows,))
        used, size = _used_pages(database), database.execute("PRAGMA page_size").fetchone()[0]
        excess = 1 - config.max_mib * 2**20 / max(1, used * size)
        if excess > 0:
            rows = database.execute("SELECT count(*) FROM event").fetchone()[0]
            most = int(rows * excess) + 1
            database.execute("DELETE FROM event WHERE seq IN (SELECT seq FROM event ORDER BY seq LIMIT ?)", (most,))


def _used_pages(database: sqlite3.Connection) -> int:
    """Pages in use: those of removed rows stay in the file and are used again."""
    pages, free = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    return int(pages - free)
