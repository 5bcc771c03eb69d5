"""Broker, RTSP server and disk taken away in turn from a running `orinspect watch`: what is lost, and what the loop feels.

Real parts: mosquitto, GStreamer's RTSP server, a tmpfs of 128 MB filled to the last byte (needs root).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from watch_line import PROJECT, Line, wait_for

SERVER = PROJECT / "tests/edge_runtime/watch/rtsp_server.py"
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
FPS = 25


def outages(bundle: Path, folder: Path, rounds: int, phase_s: float) -> dict[str, Any]:
    """Phases of `phase_s` in turn: quiet, no broker, quiet, no disk, quiet, no RTSP server; what each one did."""
    with small_disk(folder / "disk") as disk, world(folder) as (broker, camera, port, url):
        tables = {
            "mqtt": {"host": "127.0.0.1", "port": port, "topic": "line", "timeout_s": 2.0},
            "images": {"path": str(disk / "pictures"), "which": "all", "max_mib": 1},
            "jsonl": {"path": str(disk / "verdicts.jsonl"), "queue": 100_000},
            "journal": {"path": str(disk / "journal.sqlite"), "queue": 100_000},
        }
        line = Line(folder / "line", bundle, {"kind": "camera", "location": url, "timeout_s": 2.0}, **tables)
        with Listener(port) as listener:
            line.start()
            wait_for(lambda: line.last() > 30, "verdicts of the RTSP camera")
            phases = _phases(line, broker, camera, disk, rounds, phase_s)
            wait_for(lambda: _is_well(line), "every sink well again")
            found = _told(line, listener)
    return found | {"phases": phases}


def _phases(
    line: Line, broker: Part, camera: Part, disk: Path, rounds: int, phase_s: float
) -> dict[str, dict[str, Any]]:
    """Times of each phase by what was away; then the loop's latencies of the rows that were judged in them."""
    times: dict[str, list[tuple[float, float]]] = {"nothing": [], "broker": [], "disk": [], "camera": []}
    back_s = []

    def phase(name: str) -> None:
        begin = time.time()
        time.sleep(phase_s)
        times[name].append((begin, time.time()))

    for _ in range(rounds):
        phase("nothing")
        broker.kill()
        phase("broker")
        broker.start()
        phase("nothing")
        with filled(disk):
            phase("disk")
        phase("nothing")
        camera.kill()
        phase("camera")
        camera.start()
        count = line.status()["frames"]
        back_s.append(
            wait_for(lambda count=count: line.status()["frames"] > count + 5, "frames after the server is back")
        )
    wait_for(lambda: not line.status()["sinks"]["journal"]["trouble"], "a journal that writes again")
    time.sleep(3)
    return _latencies(line, times) | {"camera_back_s": {"median": float(np.median(back_s)), "most": max(back_s)}}


def _latencies(line: Line, times: dict[str, list[tuple[float, float]]]) -> dict[str, dict[str, Any]]:
    with line.opened() as database:
        rows = [json.loads(row[0]) for row in database.execute("SELECT json FROM event WHERE score IS NOT NULL")]
    at = np.array([row["judged_at"] for row in rows])
    latency = np.array([row["latency_ms"] for row in rows])
    by_phase = {name: [latency[(at >= begin) & (at < end)] for begin, end in spans] for name, spans in times.items()}
    quiet, found = by_phase["nothing"], dict[str, dict[str, Any]]()
    for name in ("broker", "disk"):
        away = by_phase[name]
        found[name] = {
            "frames": int(sum(map(len, away))),
            "frames_quiet": int(sum(map(len, quiet))),
            "p50_ms": percentile(away, 50),
            "p99_ms": percentile(away, 99),
            "p99_ms_quiet": percentile(quiet, 99),
            "p99_ratio": round(percentile(away, 99) / percentile(quiet, 99), 3),
            "p99_ratio_95": ratio_interval(away, quiet, 99),
        }
    return found


def percentile(parts: list[Any], percent: float) -> float:
    """Of all values together."""
    return round(float(np.percentile(np.concatenate(parts), percent)), 3)


def ratio_interval(ours: list[Any], theirs: list[Any], percent: float) -> list[float]:
    """95 % of the ratio of two percentiles, by drawing whole phases again (frames of one phase are alike)."""
    rng, ratios = np.random.default_rng(0), []
    for _ in range(2000):
        a, b = ([parts[n] for n in rng.integers(0, len(parts), len(parts))] for parts in (ours, theirs))
        ratios.append(np.percentile(np.concatenate(a), percent) / np.percentile(np.concatenate(b), percent))
    return [round(float(value), 3) for value in np.percentile(ratios, (2.5, 97.5))]


def _is_well(line: Line) -> bool:
    sinks = line.status()["sinks"]
    return not any(sink["trouble"] for sink in sinks.values())


def _told(line: Line, listener: Listener) -> dict[str, Any]:
    """End it, and compare what was judged, written, delivered and received."""
    code = line.kill(signal.SIGTERM)
    status, whole = line.status(), line.whole()
    with line.opened() as database:
        written = {row[0] for row in database.execute("SELECT id FROM event")}
        alarms = [row[0] for row in database.execute("SELECT json FROM event WHERE outcome IN ('alarm', 'clear')")]
        position = database.execute("SELECT seq FROM delivered WHERE sink = 'mqtt'").fetchone()[0]
        sent = {row[0] for row in database.execute("SELECT id FROM event WHERE seq <= ?", (position,))}
    lines = [json.loads(one)["id"] for one in Path(line.tables["jsonl"]["path"]).read_text().splitlines()]
    return whole | {
        "exit": code,
        "frames": status["frames"],
        "alarms": len(alarms),
        "events_dropped": status["sinks"]["journal"]["dropped"] + status["sinks"]["jsonl"]["dropped"],
        "judged_and_not_in_journal": status["frames"] + len(alarms) - len(written),
        "acknowledged_by_broker": len(sent),
        "acknowledged_and_not_received": len(sent - set(listener.got)),
        "received_twice": len(listener.got) - len(set(listener.got)),
        "in_journal_and_not_in_jsonl": len(written - set(lines)),
        "pictures_dropped": status["sinks"]["images"]["dropped"],
        "pictures_written": status["sinks"]["images"]["delivered"],
    }


class Part:
    """A process of the world around: started, killed and started again."""

    def __init__(self, command: list[str], ready: Callable[[subprocess.Popen[str]], None]) -> None:
        self._command, self._ready = command, ready
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._ready(self._process)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


@contextlib.contextmanager
def world(folder: Path) -> Iterator[tuple[Part, Part, int, str]]:
    """A broker and an RTSP server on free ports, the broker's port and the camera's URL."""
    broker_port, camera_port = free_port(), free_port()
    (folder / "mosquitto.conf").write_text(f"listener {broker_port} 127.0.0.1\nallow_anonymous true\n")
    broker = Part(
        [str(MOSQUITTO), "-c", str(folder / "mosquitto.conf")],
        lambda _: _ignore(wait_for(lambda: _listens(broker_port), "the broker's port")),
    )
    camera = Part(["/usr/bin/python3", str(SERVER), str(camera_port), str(FPS)], _serves)
    try:
        broker.start()
        camera.start()
        yield broker, camera, broker_port, f"rtsp://127.0.0.1:{camera_port}/line"
    finally:
        broker.kill()
        camera.kill()


def _ignore(_: object) -> None:
    return None


def _serves(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    if process.stdout.readline() != "serves\n":
        sys.exit("no RTSP server: apt install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good")


def _listens(port: int) -> bool:
    with socket.socket() as channel:
        return channel.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of 128 MB: what is written in all this time fits."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextlib.contextmanager
def filled(disk: Path) -> Iterator[None]:
    """The disk without one byte left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**16))
    try:
        yield
    finally:
        filler.unlink()


class Listener:
    """Collects the ids of all verdicts that the broker hands out."""

    def __init__(self, port: int) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.got: list[str] = []
        self._client: Any = Client(CallbackAPIVersion.VERSION2)
        # Sooner back at a new broker than the watch, which waits a second: what it delivers then is seen.
        self._client.reconnect_delay_set(0.02, 0.05)
        self._client.on_message = lambda _, __, told: self.got.append(json.loads(told.payload)["id"])
        self._client.on_connect = lambda *_: self._client.subscribe([("line/verdict", 1), ("line/alarm", 1)])
        self._client.connect_async("127.0.0.1", port)

    def __enter__(self) -> Listener:
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
