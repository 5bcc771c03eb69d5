"""Triggers: by a call, by a line that is a file; each gets the first frame at or after its time, and exactly one event."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import Frame, PreprocessSpec
from orinspect_edge_runtime.watch.config import SourceConfig, TriggerConfig
from orinspect_edge_runtime.watch.gpio import GpioLine, gpio_lines
from orinspect_edge_runtime.watch.reader import Reader
from orinspect_edge_runtime.watch.trigger import MOST_WAITING, Trigger


def wait_for(condition: object, within_s: float = 60) -> None:
    end = time.monotonic() + within_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def trigger(**fields: object) -> Trigger:
    return Trigger(TriggerConfig(**({"debounce_ms": 0.0} | fields)), ("left", "right"))  # type: ignore[arg-type]


def test_a_trigger_takes_the_first_frame_at_or_after_its_time() -> None:
    asked = trigger()
    before = time.time()
    assert asked.match(before + 60) is None
    assert asked.fire("left")
    assert asked.match(before - 1) is None
    shot = asked.match(before + 60)
    assert shot is not None
    assert (shot.recipe, shot.by) == ("left", "call")
    assert asked.match(before + 60) is None


def test_bounces_are_ignored_and_counted() -> None:
    asked = trigger(debounce_ms=60_000.0)
    assert [asked.fire() for _ in range(3)] == [True, False, False]
    assert (asked.fired, asked.bounced) == (1, 2)


def test_a_recipe_that_is_not_open_is_refused() -> None:
    with pytest.raises(InputError, match=r"no recipe 'up' is open \(open: left, right\)"):
        trigger().fire("up")


def test_a_trigger_without_a_frame_is_missed_once() -> None:
    asked = trigger(late_s=0.001)
    asked.fire("right")
    time.sleep(0.01)
    assert [shot.recipe for shot in asked.late()] == ["right"]
    assert list(asked.late()) == []
    assert (asked.match(time.time() + 60), asked.missed) == (None, 1)


@pytest.fixture
def impatient_threads() -> Iterator[None]:
    """Threads that are changed as often as Python can, so that a race shows itself at once."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("impatient_threads")
def test_whatever_fires_from_many_threads_is_matched_or_missed_once() -> None:
    asked = trigger(late_s=60.0)
    threads = [threading.Thread(target=lambda: [asked.fire() for _ in range(500)]) for _ in range(4)]
    for one in threads:
        one.start()
    found = 0
    while any(one.is_alive() for one in threads):
        found += asked.match(time.time() + 60) is not None
    found += sum(asked.match(time.time() + 60) is not None for _ in range(MOST_WAITING))
    assert asked.fired == 2000
    assert found + asked.missed == 2000


def frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera of 200 pictures a second."""

    def camera(*_: object) -> Iterator[Frame]:
        for index in range(10**6):
            time.sleep(0.005)
            yield Frame(np.full((8, 8, 3), index % 256, np.uint8), "cam", index, time.time())

    monkeypatch.setitem(Reader._run.__globals__["SOURCES"], "camera", camera)


def test_only_frames_that_were_asked_for_reach_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    frames(monkeypatch)
    asked = trigger(late_s=60.0)
    reader = Reader(SourceConfig("x", "camera"), PreprocessSpec(32, 32), asked)
    reader.start()
    assert reader.slot.take(0.2) is None
    for recipe in ("left", "right", "left"):
        begin = time.time()
        asked.fire(recipe)
        job = reader.slot.take(60)
        assert job is not None
        assert job.shot is not None
        assert isinstance(job.item, Frame)
        assert job.shot.recipe == recipe
        assert begin <= job.shot.at <= job.item.captured_at
        assert reader.slot.take(0.1) is None
    reader.stop(10)


def test_frames_beyond_what_may_wait_are_missed_triggers(monkeypatch: pytest.MonkeyPatch) -> None:
    frames(monkeypatch)
    asked = trigger(late_s=60.0)
    reader = Reader(SourceConfig("x", "camera"), PreprocessSpec(32, 32), asked)
    reader.start()
    for number in range(MOST_WAITING + 3):
        asked.fire()
        wait_for(lambda number=number: asked.missed == max(0, number + 1 - MOST_WAITING) and not asked._waiting)  # type: ignore[misc]
    kept = [reader.slot.take(0) for _ in range(MOST_WAITING + 1)]
    assert sum(job is not None for job in kept) == MOST_WAITING
    assert len(list(asked.late())) == asked.missed == 3
    assert reader.slot.dropped == 0
    reader.stop(10)


@pytest.mark.parametrize(("edge", "fired"), [("rising", 5), ("falling", 5), ("both", 10)])
def test_a_line_fires_at_its_edges(tmp_path: Path, edge: str, fired: int) -> None:
    line = tmp_path / "value"
    line.write_text("0\n")
    asked = Trigger(TriggerConfig({str(line): "left"}, edge=edge, debounce_ms=0.0, late_s=60.0), ("left",))
    (followed,) = gpio_lines(asked)
    # A count, not a time: each flip is seen before the next one.
    total = 0
    time.sleep(0.2)
    for value in "10" * 5:
        # A real line's value has no moment at which its file is empty.
        with line.open("r+") as file:
            file.write(value)
        total += edge == "both" or (value == "1") == (edge == "rising")
        wait_for(lambda total=total: asked.fired == total)  # type: ignore[misc]
        time.sleep(0.05)
    assert asked.fired == fired
    followed.close()
    shot = asked.match(time.time())
    assert shot is not None
    assert (shot.recipe, shot.by) == ("left", str(line))


def test_a_line_that_goes_away_is_a_trouble_and_is_followed_again(tmp_path: Path) -> None:
    line, asked = tmp_path / "value", trigger(late_s=60.0)
    followed = GpioLine(str(line), "", asked)
    wait_for(lambda: "No such file" in followed.trouble)
    line.write_text("x")
    wait_for(lambda: "holds b'x' where 0 or 1 is expected" in followed.trouble)
    line.write_text("0")
    wait_for(lambda: not followed.trouble)
    # In place: a file that is emptied first is another trouble.
    with line.open("r+") as file:
        file.write("1")
    wait_for(lambda: asked.fired == 1)
    followed.close()


def test_a_line_of_a_recipe_that_is_not_open_is_refused_at_the_start() -> None:
    with pytest.raises(InputError, match="no recipe 'up' is open"):
        gpio_lines(Trigger(TriggerConfig({"/line": "up"}), ("left",)))
