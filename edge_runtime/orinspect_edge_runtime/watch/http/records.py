"""The journal, read: pages of verdicts, their pictures, and whole downloads."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.verdict import ACCEPT, REJECT, REVIEW
from orinspect_edge_runtime.watch.event import ALARM, CLEAR, FAILED

OUTCOMES = (ACCEPT, REVIEW, REJECT, FAILED, ALARM, CLEAR)
# What a reader of the zip sees first, and in which order.
COLUMNS = ("id", "judged_at", "outcome", "score", "threshold", "recipe", "source", "index", "latency_ms", "error")
AT_ONCE = 50


class NotInJournal(InputError):
    """No verdict of that id, or it has no such picture: it was accepted, or the journal's retention took it."""


class Records:
    """Reads a journal beside its writer."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal

    def page(self, before: int, limit: int, outcomes: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """The newest verdicts below the sequence number `before`, newest first. outcomes: only those; empty: all."""
        wanted = "seq, json, picture IS NOT NULL, map IS NOT NULL"
        with self._opened() as database:
            rows = []
            # One query an outcome: each walks the index and stops after `limit` rows, however rare the outcome is.
            for outcome in outcomes or (None,):
                condition, values = ("", ()) if outcome is None else ("AND outcome = ?", (outcome,))
                query = f"SELECT {wanted} FROM event WHERE seq < ? {condition} ORDER BY seq DESC LIMIT ?"
                rows += database.execute(query, (before, *values, limit)).fetchall()
        rows.sort(key=lambda row: -row[0])
        return [
            json.loads(text) | {"seq": seq, "has_picture": bool(picture), "has_map": bool(hot)}
            for seq, text, picture, hot in rows[:limit]
        ]

    def verdict(self, event_id: str) -> dict[str, Any]:
        """One verdict. Raises NotInJournal."""
        return dict(json.loads(self._column("json", event_id)))

    def picture(self, event_id: str, kind: str) -> bytes:
        """JPEG file of a verdict, `picture` or `map`. Raises NotInJournal."""
        return bytes(self._column({"picture": "picture", "map": "map"}[kind], event_id))

    def csv(self, outcomes: tuple[str, ...], most: int) -> Iterator[bytes]:
        """A table of the newest verdicts, a block of lines at a time."""
        yield (",".join(COLUMNS) + "\r\n").encode()
        for block in self._blocks(outcomes, most):
            yield table(block)

    def zip(self, outcomes: tuple[str, ...], most: int) -> Iterator[bytes]:
        """A zip file of pictures, maps and verdicts.csv, made while it is sent: neither memory nor disk holds it."""
        sent, lines = _Sent(), io.BytesIO()
        lines.write((",".join(COLUMNS) + "\r\n").encode())
        with zipfile.ZipFile(sent, "w", zipfile.ZIP_STORED) as archive:
            for block in self._blocks(outcomes, most):
                lines.write(table(block))
                for row in block:
                    for kind in ("picture", "map"):
                        if row[f"has_{kind}"]:
                            # Gone meanwhile: the journal's retention took it.
                            with contextlib.suppress(NotInJournal):
                                archive.writestr(
                                    f"{row['outcome']}/{row['id']}-{kind}.jpg", self.picture(row["id"], kind)
                                )
                    yield sent.taken()
            archive.writestr("verdicts.csv", lines.getvalue())
        yield sent.taken()

    def _blocks(self, outcomes: tuple[str, ...], most: int) -> Iterator[list[dict[str, Any]]]:
        before = 2**62
        while most > 0 and (block := self.page(before, min(AT_ONCE, most), outcomes)):
            yield block
            before, most = block[-1]["seq"], most - len(block)

    def _column(self, column: str, event_id: str) -> Any:
        with self._opened() as database:
            row = database.execute(f"SELECT {column} FROM event WHERE id = ?", (event_id,)).fetchone()
        if row is None or row[0] is None:
            raise NotInJournal(f"verdict {event_id[:64]!r} is not in the journal, or has no such part")
        return row[0]

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(f"{self._journal.resolve().as_uri()}?mode=ro", uri=True, timeout=5)
            with contextlib.closing(database):
                yield database
        except sqlite3.Error as error:
            raise InputError(f"the journal cannot be read now ({error})") from error


def table(rows: list[dict[str, Any]]) -> bytes:
    """Lines of CSV in the order of COLUMNS."""
    file = io.StringIO()
    csv.writer(file).writerows([_harmless(row[name]) for name in COLUMNS] for row in rows)
    return file.getvalue().encode()


def _harmless(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets a quote in front."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value


class _Sent(io.RawIOBase):
    """What the zip writes, until it is taken."""

    def __init__(self) -> None:
        self._parts = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts += data
        return len(data)

    def taken(self) -> bytes:
        content, self._parts = bytes(self._parts), bytearray()
        return content
