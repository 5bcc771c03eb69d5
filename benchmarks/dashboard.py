"""What viewers of the dashboard cost the verdict loop, and what HTTP costs in memory.

    python benchmarks/dashboard.py BUNDLE IMAGES --recipe NAME            writes benchmarks/results/dashboard.json
    python benchmarks/dashboard.py BUNDLE IMAGES --recipe NAME --quick    fewer rounds; prints only

The watch is a process of its own on an MJPEG camera of 10 pictures a second. Spans of 4 seconds without and with three
viewers take turns; a viewer reads the events and asks for the live picture with its heat map as the page does. Latencies are
the journal's, CPU time is the process's own. Then the memory of the same watch after requests of every kind, against a watch
without [http], and the time from SIGTERM to the end with the viewers still connected.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sqlite3
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

from dashboard_pictures import Camera, Line, answers, wait
from http_fuzz import resident_mib
from revision import revision

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.preprocess import list_images

RESULT = Path(__file__).parent / "results/dashboard.json"
SPAN_S, VIEWERS, PICTURE_EVERY_S = 4.0, 3, 0.2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    rounds = 3 if chosen.quick else 25
    images = [path.read_bytes() for path in list_images([chosen.images])]
    with tempfile.TemporaryDirectory(prefix="orinspect-dashboard-") as name:
        place, camera = Path(name), Camera(images)
        bare = Line(place / "bare", chosen.bundle, chosen.recipe, camera.source, http=False)
        line = Line(place / "line", chosen.bundle, chosen.recipe, camera.source)
        wait(answers(line.port), "the dashboard")
        time.sleep(10)
        found = {
            "resident_mib": {"without_http": resident_mib(bare.process.pid), "idle": resident_mib(line.process.pid)}
        }
        bare.close()
        found |= viewed(line, rounds)
        found["resident_mib"] |= memory(line, images[0], 300 if chosen.quick else 5000)
        found["drain_s"] = drained(line)
        camera.close()
    print(json.dumps(found, indent=2))
    if not chosen.quick:
        result = {"protocol": __doc__, "conditions": measure_conditions(0) | {"commit": revision()}, "found": found}
        durable.write_bytes(RESULT, json.dumps(result, indent=2).encode() + b"\n")
    return 0


def viewed(line: Line, rounds: int) -> dict[str, Any]:
    """Spans without and with viewers in turn: medians over the rounds, and each round's ratio."""
    spans: dict[str, list[Any]] = {"alone": [], "viewed": []}
    for number in range(2 * rounds):
        name = ("alone", "viewed")[number % 2]
        viewers = [Viewer(line.port) for _ in range(VIEWERS if name == "viewed" else 0)]
        time.sleep(0.5)
        begin, cpu = time.time(), cpu_s(line.process.pid)
        time.sleep(SPAN_S)
        spans[name].append((begin, time.time(), cpu_s(line.process.pid) - cpu, sum(one.pictures for one in viewers)))
        for one in viewers:
            one.close()
    time.sleep(1)
    figures = {name: [figure(line, *span) for span in taken] for name, taken in spans.items()}
    told: dict[str, Any] = {
        name: {key: round(median(one[key] for one in taken), 3) for key in taken[0]} for name, taken in figures.items()
    }
    for key in ("latency_p50_ms", "latency_p90_ms", "frames_a_second", "cpu_ms_a_frame"):
        ratios = sorted(b[key] / a[key] for a, b in zip(figures["alone"], figures["viewed"], strict=True))
        told[f"ratio_{key}"] = {"median": ratios[len(ratios) // 2], "all": [round(one, 3) for one in ratios]}
    return told


def figure(line: Line, begin: float, end: float, cpu: float, pictures: int) -> dict[str, float]:
    with sqlite3.connect(line.folder / "journal.sqlite") as database:
        query = "SELECT json FROM event WHERE judged_at BETWEEN ? AND ?"
        found = sorted(json.loads(text)["latency_ms"] for (text,) in database.execute(query, (begin, end)))
    return {
        "frames_a_second": len(found) / (end - begin),
        "latency_p50_ms": found[len(found) // 2],
        "latency_p90_ms": found[int(len(found) * 0.9)],
        "cpu_ms_a_frame": 1e3 * cpu / len(found),
        "pictures_a_second": pictures / (end - begin),
    }


class Viewer:
    """Reads events, and after them the live picture at most every PICTURE_EVERY_S, as the page does."""

    def __init__(self, port: int) -> None:
        self.pictures, self._port, self._closing = 0, port, False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._thread.join()

    def _run(self) -> None:
        events, pictures = (http.client.HTTPConnection("127.0.0.1", self._port, timeout=60) for _ in range(2))
        events.request("GET", "/api/events")
        stream, asked = events.getresponse(), 0.0
        while not self._closing and (text := stream.readline()):
            if text.startswith(b"event: verdicts") and time.monotonic() > asked + PICTURE_EVERY_S:
                asked = time.monotonic()
                pictures.request("GET", "/api/live.jpg?heat=1")
                self.pictures += bool(pictures.getresponse().read())
        events.close()
        pictures.close()


def memory(line: Line, image: bytes, count: int) -> dict[str, float]:
    """Resident memory after so many requests of each kind, one kind after another."""
    told = {"after_viewers": resident_mib(line.process.pid)}
    client = http.client.HTTPConnection("127.0.0.1", line.port, timeout=120)
    for name, method, path, body, times in (
        ("after_verdicts", "GET", "/api/verdicts?limit=50", None, count),
        ("after_live", "GET", "/api/live.jpg", None, count),
        ("after_metrics", "GET", "/metrics", None, count),
        ("after_first_score", "POST", "/api/score", image, 1),
        ("after_scores", "POST", "/api/score", image, count // 50),
    ):
        for _ in range(times):
            client.request(method, path, body)
            client.getresponse().read()
        told[name] = resident_mib(line.process.pid)
    client.close()
    return told


def drained(line: Line) -> float:
    """Seconds from SIGTERM to the end with viewers connected."""
    viewers = [Viewer(line.port) for _ in range(VIEWERS)]
    time.sleep(1)
    begin = time.monotonic()
    line.close()
    took = time.monotonic() - begin
    for one in viewers:
        one._closing = True
    return round(took, 2)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
