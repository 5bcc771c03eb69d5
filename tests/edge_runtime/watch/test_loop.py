"""The whole process: ready, verdicts, reload, drain; and the parts of the loop."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copy, copytree
from typing import Any

import numpy as np
import pytest
from site_of_tests import wait_for

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.errors import CheckFailed, ImageError
from orinspect_edge_runtime.fit import fit_recipe
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.preprocess import Frame, list_images, read_frame
from orinspect_edge_runtime.verdict import Verdict
from orinspect_edge_runtime.watch.alarms import Alarms
from orinspect_edge_runtime.watch.config import RecipeConfig, VerdictConfig, make_config
from orinspect_edge_runtime.watch.drift_watch import DriftWatch
from orinspect_edge_runtime.watch.journal import opened
from orinspect_edge_runtime.watch.judge import Judge
from orinspect_edge_runtime.watch.latency import Latency
from orinspect_edge_runtime.watch.loop import Watch
from orinspect_edge_runtime.watch.trigger import Shot

WATCH = "from orinspect_edge_runtime.watch.command import watch; watch(standalone_mode=False)"


@pytest.fixture(scope="module")
def bundle(real_bundle: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watch") / "bundle"
    copytree(real_bundle, folder)
    made = Bundle.open(folder)
    paths = list_images([pictures / "train"])
    frames = [read_frame(path, made.manifest.preprocess) for path in paths]
    made.add_recipe(fit_recipe(made, iter(frames), "part", FitOptions()))
    return folder


class Running:
    """`orinspect watch` as a process under a stand-in for systemd's socket, on a folder `in`."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.folder, self.file = folder, folder / "watch.toml"
        (folder / "in").mkdir()
        self.write(bundle)
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.systemd.bind(str(folder / "notify"))
        self.systemd.settimeout(60)
        environment = os.environ | {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "30000000"}
        self.log = (folder / "log").open("wb")
        command = [sys.executable, "-c", WATCH, str(self.file)]
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stderr=self.log)

    def write(self, bundle: Path, more: str = "") -> None:
        self.file.write_text(
            f'[source]\nlocation = "in"\n[recipe]\nbundle = "{bundle}"\n{more}[jsonl]\npath = "verdicts.jsonl"\n'
        )

    def rows(self) -> list[tuple[Any, ...]]:
        with opened(self.folder / "journal.sqlite") as database:
            return database.execute("SELECT outcome, picture, json, map FROM event ORDER BY seq").fetchall()

    def logged(self, text: str) -> bool:
        return text in (self.folder / "log").read_text()


@pytest.fixture
def running(tmp_path: Path, bundle: Path) -> Iterator[Running]:
    run = Running(tmp_path, bundle)
    yield run
    run.process.kill()
    run.process.wait()
    run.systemd.close()
    run.log.close()


def test_the_service_from_ready_to_its_end(running: Running, bundle: Path, pictures: Path) -> None:
    assert running.systemd.recv(200) == b"READY=1\nSTATUS=golden reproduced"
    assert running.systemd.recv(200) == b"WATCHDOG=1"
    copy(pictures / "test/good/00.png", running.folder / "in/a.png")
    wait_for(lambda: len(running.rows()) == 1)
    (running.folder / "in/b.png").write_bytes(b"broken")
    wait_for(lambda: len(running.rows()) == 2)
    copy(pictures / "test/blot/00.png", running.folder / "in/c.png")
    rows = wait_for(lambda: found if len(found := running.rows()) == 3 else None)
    assert [row[0] for row in rows] == ["accept", "failed", "reject"]
    assert [row[1] is not None for row in rows] == [row[3] is not None for row in rows] == [False, False, True]
    assert "in/b.png: not an image" in json.loads(rows[1][2])["error"]

    running.file.write_text("[sorce]")
    running.process.send_signal(signal.SIGHUP)
    wait_for(lambda: running.logged("the old configuration stays: ") and running.logged("did you mean 'source'?"))
    running.write(bundle, "[verdict]\ndebounce = 2\n")
    running.process.send_signal(signal.SIGHUP)
    wait_for(lambda: running.logged("reloaded: "))
    copy(pictures / "test/blot/01.png", running.folder / "in/d.png")
    rows = wait_for(lambda: found if len(found := running.rows()) == 4 else None)
    assert rows[-1][0] == "review"

    copy(pictures / "test/good/01.png", running.folder / "in/e.png")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == 0
    told = json.loads((running.folder / "status.json").read_text())
    assert told["sinks"]["journal"]["delivered"] == told["frames"] == len(running.rows())
    lines = (running.folder / "verdicts.jsonl").read_text().splitlines()
    assert lines == [row[2] for row in running.rows()]


def test_debounce_and_review(bundle: Path) -> None:
    judge = Judge(RecipeConfig(str(bundle)), VerdictConfig(review_band=0.2, debounce=2))
    with judge.detector:
        none = np.zeros(0, np.float32)
        outcomes = [
            judge.outcome(Verdict(score, 10.0, score > 10, None, 0.5, 0, 1.0, none))
            for score in (7, 9, 11, 12, 13, 1, 11)
        ]
    assert outcomes == ["accept", "review", "review", "reject", "reject", "accept", "review"]


def test_a_frame_that_fails_is_an_event(bundle: Path) -> None:
    judge = Judge(RecipeConfig(str(bundle)), VerdictConfig())
    with judge.detector:
        assert judge(ImageError("x.png: not an image")).error == "x.png: not an image"
        event = judge(Frame(np.zeros((9, 9), np.uint8), "camera"))
    assert (event.outcome, event.score) == ("failed", None)
    assert "a frame must be uint8" in event.error


def test_no_verdict_before_golden_is_reproduced(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Detector.require_golden.__globals__, "compare", _worse(Detector))
    with pytest.raises(CheckFailed, match="does not reproduce golden"):
        Judge(RecipeConfig(str(bundle)), VerdictConfig())


def _worse(_: object) -> Callable[..., Any]:
    """The real comparison, with golden's embeddings turned round: an engine that computes something else."""
    from orinspect_edge_runtime.golden import compare

    return lambda backend, spec, golden: compare(backend, spec, golden | {"embedding": -golden["embedding"]})


def test_a_trigger_names_the_recipe_and_switching_takes_no_time(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    copytree(bundle, tmp_path / "bundle")
    made = Bundle.open(tmp_path / "bundle")
    part = made.recipe("part")
    made.add_recipe(dataclasses.replace(part, name="strict", threshold=-1e3))
    judge = Judge(RecipeConfig(str(made.path), "part", also=("strict",)), VerdictConfig())
    frame = read_frame(pictures / "test/good/00.png", made.manifest.preprocess)
    asked = [Shot(1.0, recipe, "gpio") for recipe in ("", "strict", "part", "nowhere")]
    found = [judge(frame, shot) for shot in asked]
    assert [event.outcome for event in found] == ["accept", "reject", "accept", "failed"]
    assert [event.recipe for event in found] == ["part", "strict", "part", "part"]
    assert "no recipe 'nowhere' is ready (ready: part, strict)" in found[3].error
    assert {(event.triggered_at, event.trigger) for event in found} == {(1.0, "gpio")}
    took = []
    for recipe in ("strict", "part") * 20:
        begin = time.perf_counter()
        judge.use(recipe)
        took.append(time.perf_counter() - begin)
        assert judge(frame).outcome == {"strict": "reject", "part": "accept"}[recipe]
    assert min(took) < 1e-3
    judge.close()


def test_drift_is_an_alarm_of_its_recipe(bundle: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orinspect_edge_runtime.watch.drift_watch.MOST_PER_S", float("inf"))
    judge = Judge(RecipeConfig(str(bundle)), VerdictConfig())
    drift, alarms = DriftWatch(judge, VerdictConfig()), Alarms("cam")
    paths = list_images([pictures / "test/good"])
    frames = [read_frame(path, judge.detector.bundle.manifest.preprocess) for path in paths]

    def show(count: int, brighter: int) -> None:
        for number in range(count):
            pixels = frames[number % len(frames)].pixels + np.uint8(brighter)
            verdict = judge.detector(pixels)
            before = drift.status()["part"]["images"]  # type: ignore[index]
            drift.offer("part", verdict, pixels)
            wait_for(lambda before=before: drift.status()["part"]["images"] > before)

    show(20, 0)
    assert list(alarms.changed(drift.troubles, judge.product.known)) == []
    show(60, 60)
    (event, *_) = alarms.changed(drift.troubles, judge.product.known)
    assert event.outcome == "alarm"
    assert event.error.startswith("drift of part ")
    assert "brighter" in event.error
    drift.close()
    edited = DriftWatch(judge, VerdictConfig(), drift)
    assert (edited.status(), edited.troubles) == (drift.status(), drift.troubles), "an edit ends no alarm"
    edited.close()
    drift = DriftWatch(judge, VerdictConfig())
    # After a reload there is nothing to tell of yet: what was wrong is over until it shows again.
    assert [e.outcome for e in alarms.changed(drift.troubles, judge.product.known)] == ["clear"]
    drift.close()
    drift = DriftWatch(judge, VerdictConfig(drift=False))
    drift.offer("part", judge.detector(frames[0]), frames[0].pixels)
    assert drift.status() == {}
    drift.close()
    judge.close()


def test_troubles_are_events_when_they_begin_and_end() -> None:
    alarms = Alarms("cam")
    told = ["", "lost: refused", "lost: silent", "black", "black", "", ""]
    found = [
        [(e.outcome, e.error, e.source, e.recipe) for e in alarms.changed({"camera": t}, ("r", "a", "b"))] for t in told
    ]
    assert found == [
        [],
        [("alarm", "camera lost: refused", "cam", "r")],
        [],
        [("alarm", "camera black", "cam", "r")],
        [],
        [("clear", "camera black", "cam", "r")],
        [],
    ]
    assert alarms.active == {}


def test_a_triggered_line_judges_what_was_asked_for_and_tells_what_was_missed(bundle: Path, tmp_path: Path) -> None:
    """The whole loop on a real pipeline whose picture never changes, triggered by a line that is a file."""
    if shutil.which("gst-launch-1.0") is None:
        pytest.skip("apt install gstreamer1.0-tools")
    line = tmp_path / "value"
    line.write_text("0")
    pipeline = "videotestsrc pattern=black is-live=true ! video/x-raw,framerate=25/1"
    source = {"kind": "gstreamer", "location": pipeline, "size": [32, 32], "timeout_s": 60, "black_below": 30}
    values = {"source": source, "recipe": {"bundle": str(bundle)}, "trigger": {"gpio": {str(line): ""}, "late_s": 60}}
    values |= {"journal": {"path": str(tmp_path / "j.sqlite")}, "status": str(tmp_path / "status.json")}
    watch = Watch(tmp_path / "watch.toml", make_config(values))
    assert watch.trigger is not None
    watch.reader.start()
    wait_for(lambda: watch.step() is None and watch.alarms.active)
    with line.open("r+") as file:
        file.write("1")
    event = wait_for(watch.step)
    assert (event.trigger, event.triggered_at <= event.captured_at) == (str(line), True)
    assert watch.step() is None
    watch.reader.stop(60)
    watch.trigger.config = dataclasses.replace(watch.trigger.config, late_s=0.001)
    watch.trigger.fire()
    wait_for(lambda: watch.step() is None and watch.trigger.missed)
    watch._end()
    with opened(tmp_path / "j.sqlite") as database:
        rows = [json.loads(row[0]) for row in database.execute("SELECT json FROM event ORDER BY seq")]
    assert [row["outcome"] for row in (rows[0], *rows[2:])] == ["alarm", "failed"]
    assert rows[0]["error"] == "camera black"
    assert "no frame could be judged in time" in rows[2]["error"]
    told = json.loads((tmp_path / "status.json").read_text())
    assert (told["trigger"]["fired"], told["trigger"]["missed"], told["alarms"]) == (2, 1, {"camera": "black"})


def test_the_recipe_judges_as_before_after_golden(bundle: Path, pictures: Path) -> None:
    with Detector.load(bundle) as detector:
        before = detector(pictures / "test/blot/00.png").score
        detector.require_golden()
        assert detector(pictures / "test/blot/00.png").score == before


def test_the_histogram_is_exact_to_a_bucket() -> None:
    latency = Latency()
    for value in range(1, 1001):
        latency.add(value / 10)
    assert [latency.percentile_ms(p) for p in (50, 99)] == pytest.approx([50, 99], rel=0.075)
    latency.add(1e12)
    latency.add(-1)
    assert latency.count == 1002
