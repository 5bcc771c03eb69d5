"""Frames of what was not accepted, at the model's size and lossless, so that feedback can use them days later."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.picture_file import to_png
from orinspect_edge_runtime.preprocess import Pixels
from orinspect_edge_runtime.watch.journal import opened

SCHEMA = "CREATE TABLE IF NOT EXISTS frame (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, png BLOB)"


@dataclass(frozen=True)
class KeptFrame:
    """An event's frame as it entered the graph, uint8 [h, w, 3]."""

    id: str
    pixels: Pixels


class KeptFrames:
    """An SQLite file with the newest `most` frames. `write` is called by an Outbox's thread."""

    def __init__(self, path: Path, most: int) -> None:
        self._path, self._most = path, most
        try:
            with opened(path) as database:
                database.execute(SCHEMA)
        except sqlite3.Error as error:
            raise InputError(f"{path}: cannot be used for the frames of rejects ({error})") from error

    def write(self, frames: Sequence[KeptFrame]) -> None:
        """Store the frames and forget the oldest. Raises sqlite3.Error."""
        rows = [(frame.id, to_png(frame.pixels, quick=True)) for frame in frames]
        with opened(self._path) as database, database:
            database.executemany("INSERT OR IGNORE INTO frame VALUES (NULL, ?, ?)", rows)
            database.execute("DELETE FROM frame WHERE seq <= (SELECT max(seq) FROM frame) - ?", (self._most,))

    def read(self, event_id: str) -> Pixels | None:
        """The frame of an event, None when it was not kept."""
        with opened(self._path) as database:
            row = database.execute("SELECT png FROM frame WHERE id = ?", (event_id,)).fetchone()
        return None if row is None else np.asarray(Image.open(io.BytesIO(row[0])).convert("RGB"))
