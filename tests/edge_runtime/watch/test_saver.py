"""Pictures as files: which, where, how many, and a disk that is full."""

from __future__ import annotations

import os
import re
import time
import uuid
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orinspect_edge_runtime.watch.config import ImagesConfig
from orinspect_edge_runtime.watch.event import Event
from orinspect_edge_runtime.watch.outbox import Outbox
from orinspect_edge_runtime.watch.saver import Saver, tidy

PIXELS = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
DAY_S = 86_400.0


def event(outcome: str = "reject", at: float | None = None) -> Event:
    at = time.time() if at is None else at
    return Event(uuid.uuid4().hex, at, at, "x", 0, outcome, 1.0, 2.0, 3.0, "r", "a", "b")


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.jpg"))


def test_pictures_lie_in_a_folder_a_day_at_their_own_size(tmp_path: Path) -> None:
    at = datetime(2026, 11, 25, 9, 30, 15, 250_000, timezone.utc).timestamp()
    told = event(at=at)
    saver = Saver(ImagesConfig(str(tmp_path), max_age_days=36_500))
    saver.write([(told, PIXELS)])
    saver.write([(told, PIXELS)])
    (file,) = files(tmp_path)
    assert file.relative_to(tmp_path) == Path(f"2026-11-25/093015.250-reject-{told.id}.jpg")
    with Image.open(file) as image:
        assert image.size == (640, 480)


@pytest.mark.parametrize(
    ("which", "kept"),
    [("rejects", ["reject"]), ("reviews", ["reject", "review"]), ("all", ["accept", "reject", "review"])],
)
def test_which_are_kept(tmp_path: Path, which: str, kept: list[str]) -> None:
    saver = Saver(ImagesConfig(str(tmp_path), which))
    assert [o for o in ("accept", "alarm", "failed", "reject", "review") if saver.wants(event(o))] == kept


def test_the_oldest_go_by_age_and_size_and_nothing_else(tmp_path: Path) -> None:
    now, config = 1_000 * DAY_S, ImagesConfig(str(tmp_path), max_age_days=36_500)
    saver = Saver(config)
    for days in range(20):
        told = event(at=now - days * DAY_S)
        saver.write([(told, PIXELS)])
        (file,) = tmp_path.rglob(f"*{told.id}.jpg")
        os.utime(file, (told.judged_at, told.judged_at))
    theirs = tmp_path / "1970-01-05" / "holiday.jpg"
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_bytes(b"mine")
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    os.utime(theirs, (0, 0))
    tidy(tmp_path, ImagesConfig(str(tmp_path), max_age_days=10), now + 1)
    kept = [file for file in files(tmp_path) if re.fullmatch(r".*-reject-.*", file.name)]
    assert len(kept) == 10
    size = kept[0].stat().st_size
    most = 2**20 // size
    assert most < 10
    tidy(tmp_path, ImagesConfig(str(tmp_path), max_age_days=10, max_mib=1), now + 1)
    assert [f for f in files(tmp_path) if "reject" in f.name] == kept[-most:]
    assert theirs.exists()
    assert (tmp_path / "holiday.jpg").exists()
    assert len([day for day in tmp_path.iterdir() if day.is_dir()]) == most + 1


def test_a_full_disk_neither_waits_nor_leaves_half_a_picture(small_disk: Path) -> None:
    box = Outbox("images", Saver(ImagesConfig(str(small_disk), max_mib=100)).write, queue=3, batch=1)
    end = time.monotonic() + 60
    while not box.trouble and time.monotonic() < end:
        box.offer((event(), PIXELS))
        time.sleep(0.01)
    assert "space" in box.trouble
    # It is full: those offered beyond the queue are refused at once, however long the disk takes.
    assert [box.offer((event(), PIXELS)) for _ in range(20)][-17:] == [False] * 17
    for file in files(small_disk):
        with Image.open(file) as image:
            image.load()
    files(small_disk)[0].unlink()
    before = box.delivered
    while box.delivered == before and time.monotonic() < end:
        time.sleep(0.05)
    assert box.delivered > before
    box.close(time.monotonic())
