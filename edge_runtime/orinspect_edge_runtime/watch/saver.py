"""Pictures of verdicts as files, at their own size: a folder a day, bounded by size and age."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from PIL import Image

from orinspect_edge_runtime.preprocess import Pixels
from orinspect_edge_runtime.verdict import ACCEPT, REJECT, REVIEW
from orinspect_edge_runtime.watch.config import ImagesConfig
from orinspect_edge_runtime.watch.event import Event

OUTCOMES = {"rejects": (REJECT,), "reviews": (REJECT, REVIEW), "all": (REJECT, REVIEW, ACCEPT)}
# Only files with names of this form are ever removed, whatever else lies in the folder.
DAY, NAME = re.compile(r"\d{4}-\d\d-\d\d"), re.compile(r"\.?\d{6}\.\d{3}-[a-z]+-[0-9a-f]{32}\.jpg(\.partial)?")
# Old files go every so many seconds, and after a write that failed.
TIDY_EVERY_S = 60.0
Picture = tuple[Event, Pixels]


class Saver:
    """Writes FOLDER/2026-11-25/093015.250-reject-ID.jpg (UTC); `write` is called from one thread."""

    def __init__(self, config: ImagesConfig) -> None:
        self._config, self._folder, self._tidied_at = config, Path(config.path), -float("inf")

    def wants(self, event: Event) -> bool:
        """Whether an event's picture is kept."""
        return event.outcome in OUTCOMES[self._config.which]

    def write(self, pictures: Sequence[Picture]) -> None:
        """Write the pictures; one that is there already is written again. Raises OSError."""
        if time.monotonic() > self._tidied_at + TIDY_EVERY_S:
            self._tidy()
        try:
            for event, pixels in pictures:
                self._save(event, pixels)
        except OSError:
            self._tidy()
            raise

    def _save(self, event: Event, pixels: Pixels) -> None:
        at = datetime.fromtimestamp(event.judged_at, timezone.utc)
        folder = self._folder / f"{at:%Y-%m-%d}"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{at:%H%M%S}.{at.microsecond // 1000:03d}-{event.outcome}-{event.id}.jpg"
        partial = folder / f".{name}.partial"
        try:
            with partial.open("wb") as file:
                Image.fromarray(pixels).save(file, "JPEG", quality=self._config.quality)
            partial.replace(folder / name)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _tidy(self) -> None:
        self._tidied_at = time.monotonic()
        tidy(self._folder, self._config, time.time())


def tidy(folder: Path, config: ImagesConfig, now: float) -> None:
    """Remove what is older than max_age_days and, from the oldest on, what is over max_mib; then empty days."""
    files = sorted(_files(folder), key=lambda one: one[1])
    room, oldest = config.max_mib * 2**20, now - config.max_age_days * 86_400
    excess = sum(size for _, _, size in files) - room
    for path, written_at, size in files:
        if excess <= 0 and written_at >= oldest:
            break
        path.unlink(missing_ok=True)
        excess -= size
    for day in _days(folder):
        with contextlib.suppress(OSError):
            # Refused unless it is empty.
            day.rmdir()


def _files(folder: Path) -> list[tuple[Path, float, int]]:
    """Path, time and size of the pictures; half-written ones of a killed process too."""
    return [
        (Path(entry.path), entry.stat().st_mtime, entry.stat().st_size)
        for day in _days(folder)
        for entry in os.scandir(day)
        if NAME.fullmatch(entry.name)
    ]


def _days(folder: Path) -> list[Path]:
    return [day for day in folder.iterdir() if DAY.fullmatch(day.name) and day.is_dir()] if folder.is_dir() else []
