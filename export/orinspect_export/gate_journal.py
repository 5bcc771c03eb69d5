"""What the accuracy gate has measured so far: an export that was killed goes on there when it is started again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Measure = Callable[[], Any]
# Gives the value of a name, and measures it only when it is not known yet.
Remember = Callable[[str, Measure], Any]


def measure_anew(name: str, measure: Measure) -> Any:
    """The Remember of those who have no journal."""
    return measure()


class GateJournal:
    """JSON lines in a file: the key of the export first, then one measurement a line, each on the disk before the next.

    path: of the file; it appears with the first measurement. key: whatever the measurements depend on; a file of another
    key is started anew, and whatever follows a damaged line is measured again.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        self._path, self._key = path, hashlib.sha256(key).hexdigest()
        self._known = self._read()

    def remember(self, name: str, measure: Measure) -> Any:
        """The JSON value of a name. Raises what `measure` raises."""
        if name not in self._known:
            value = measure()
            if not self._known:
                self._write({"key": self._key}, "w")
            self._write({"name": name, "value": value}, "a")
            # As it will be read back: no list that was a tuple the first time.
            self._known[name] = json.loads(json.dumps(value))
        return self._known[name]

    def drop(self) -> None:
        """The export is done: remove the file."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
        except OSError:
            return {}
        known: dict[str, Any] = {}
        whole = 0
        for number, line in enumerate(lines):
            entry = _entry(line)
            if entry is None or (number == 0 and entry.get("key") != self._key):
                break
            if number > 0:
                known[str(entry["name"])] = entry["value"]
            whole += len(line)
        if known:
            os.truncate(self._path, whole)
        return known

    def _write(self, entry: dict[str, Any], mode: str) -> None:
        """A disk that refuses costs the measurements of a killed export, not this one's."""
        try:
            with self._path.open(mode, encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            return


def _entry(line: bytes) -> dict[str, Any] | None:
    """The object of a whole line, or None."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = line.endswith(b"\n") and isinstance(found, dict) and ("key" in found or {"name", "value"} <= set(found))
    return found if whole else None
