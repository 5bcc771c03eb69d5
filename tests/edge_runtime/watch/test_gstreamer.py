"""Pipelines of real GStreamer, with videotestsrc in the camera's place: they die, hang, and stop short."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import PreprocessSpec
from orinspect_edge_runtime.watch import gstreamer
from orinspect_edge_runtime.watch.config import SourceConfig
from orinspect_edge_runtime.watch.reader import Reader

SPEC = PreprocessSpec(32, 32)
pytestmark = pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="apt install gstreamer1.0-tools")


def source(pipeline: str, size: tuple[int, int] = (30, 20), **fields: Any) -> SourceConfig:
    return SourceConfig(pipeline, "gstreamer", size=size, **({"timeout_s": 60} | fields))


def children() -> set[int]:
    """Processes of gst-launch below this one, zombies too."""
    found = set()
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = place.read_text().partition(") ")
        except OSError:
            continue
        if int(rest.split()[1]) == os.getpid() and ("gst-launch" in name or "setpriv" in name):
            found.add(int(place.parent.name))
    return found


def taken(reader: Reader, count: int) -> list[Any]:
    found, end = [], time.monotonic() + 60
    while len(found) < count and time.monotonic() < end:
        job = reader.slot.take(0.2)
        found += [] if job is None else [job.item]
    return found


def test_pictures_come_whole_though_rows_are_padded() -> None:
    # A row of 30 RGB pixels is 90 bytes, which GStreamer pads to 92.
    config = source("videotestsrc pattern=solid-color foreground-color=0xff3264c8 num-buffers=5")
    found = []
    with pytest.raises(InputError, match=r"cam: the pipeline ended \(without a word\)"):
        for picture in gstreamer.pictures(config, "cam"):
            found += [] if picture is None else [picture]
    assert 1 <= len(found) <= 5
    assert all(one.shape == (20, 30, 3) and one.flags.c_contiguous for one in found)
    assert np.abs(found[0].astype(int) - (0x32, 0x64, 0xC8)).max() <= 3
    assert not children()


@pytest.mark.parametrize(
    ("pipeline", "says"),
    [
        ("nosuchsrc", "the pipeline ended (.*nosuchsrc"),
        ("videotestsrc ! video/x-raw,width=64,height=48", "the pipeline ended (.*"),
        ("videotestsrc pattern='", "cannot be read"),
    ],
)
def test_a_pipeline_that_cannot_run_says_why(pipeline: str, says: str) -> None:
    with pytest.raises(InputError, match=says.replace("(", r"\(")):
        list(gstreamer.pictures(source(pipeline), "cam"))
    assert not children()


def test_a_pipeline_that_hangs_is_killed() -> None:
    # The valve lets nothing through: a camera that was opened and is silent.
    begin = time.monotonic()
    with pytest.raises(InputError, match="cam: no picture for 0.5 s"):
        list(gstreamer.pictures(source("videotestsrc is-live=true ! valve drop=true", timeout_s=0.5), "cam"))
    assert time.monotonic() - begin >= 0.5
    assert not children()


def test_a_pipeline_that_is_killed_is_opened_again() -> None:
    reader = Reader(source("videotestsrc is-live=true ! video/x-raw,framerate=50/1"), SPEC)
    reader.start()
    assert len(taken(reader, 3)) == 3
    (first,) = children()
    os.kill(first, signal.SIGKILL)
    end = time.monotonic() + 60
    while not reader.trouble and time.monotonic() < end:
        reader.slot.take(0.05)
    assert reader.trouble.startswith("lost: ")
    while (not children() or children() == {first}) and time.monotonic() < end:
        time.sleep(0.05)
    assert len(taken(reader, 3)) == 3
    assert children() != {first}
    reader.stop(60)
    assert not children()


OPEN = """
import sys
from orinspect_edge_runtime.watch import gstreamer
from orinspect_edge_runtime.watch.config import SourceConfig
pipeline = "videotestsrc is-live=true ! valve drop=true"
print(gstreamer.subprocess.os.getpid(), flush=True)
for _ in gstreamer.pictures(SourceConfig(pipeline, "gstreamer", size=(32, 32), timeout_s=600), "cam"):
    print("waits", flush=True)
"""


def test_a_hanging_pipeline_dies_with_a_reader_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", OPEN], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.stdout.readline() == "waits\n"
        below = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        assert len(below) == 1
        child.kill()
    end = time.monotonic() + 60
    while Path(f"/proc/{below[0]}").exists() and time.monotonic() < end:
        state = Path(f"/proc/{below[0]}/stat").read_text().rpartition(") ")[2][0]
        if state == "Z":
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{below[0]}").exists()
