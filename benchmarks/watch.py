"""The proof of `orinspect watch`: latency, start, memory, outages, kill -9 and a day of frames, on real parts.

    sudo python benchmarks/watch.py                      all parts, about an hour; writes benchmarks/results/watch.json
    sudo python benchmarks/watch.py --quick              each part in small, about a minute; prints only
    sudo python benchmarks/watch.py --only kills start   these parts; the others stay in the file as they are

It makes its own bundles and pictures. Needs mosquitto, gstreamer1.0-tools, gstreamer1.0-plugins-good,
gir1.2-gst-rtsp-server-1.0 and python3-gi from apt, and root for a small file system. The loop is the product's own
process, except for latency and memory, which call its parts. Says nothing about a Jetson.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from revision import revision
from watch_line import RECIPE, Line, real_bundle, tiny_bundle, wait_for
from watch_outages import MOSQUITTO, SERVER, outages

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.bench.memory import resident_mib
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.preprocess import list_images, read_frame
from orinspect_edge_runtime.watch.config import make_config
from orinspect_edge_runtime.watch.judge import Judge
from orinspect_edge_runtime.watch.loop import Watch
from orinspect_edge_runtime.watch.sinks import Sinks
from orinspect_edge_runtime.watch.slot import Job

RESULT = Path(__file__).parent / "results/watch.json"


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    latency_frames: int
    starts: int
    memory_frames: int
    memory_s: float
    rounds: int
    phase_s: float
    kills: int
    day_frames: int


FULL = Scale(800, 20, 1_000_000, 1800.0, 5, 10.0, 200, 86_400)
QUICK = Scale(100, 2, 5000, 30.0, 1, 3.0, 3, 250)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    chosen = parser.parse_args()
    if os.geteuid() or not MOSQUITTO or not shutil.which("gst-launch-1.0") or not SERVER.exists():
        parser.error("run it as root, in the sources, with mosquitto and gstreamer1.0-tools installed")
    wrong, commit = [], revision()
    for name in chosen.only:
        with tempfile.TemporaryDirectory(prefix="orinspect-watch-") as folder:
            found = PARTS[name](Path(folder), QUICK if chosen.quick else FULL)
        print(json.dumps({name: found}, indent=2), flush=True)
        wrong += [f"{name}: {key} is {found[key]}" for key in NONE_OF if found.get(key)]
        if not chosen.quick:
            _store(name, found, commit)
    print("\n".join(wrong) or "nothing was lost")
    return int(bool(wrong))


# What must be zero or false wherever it is told.
NONE_OF = (
    "torn",
    "duplicate_ids",
    "events_dropped",
    "judged_and_not_in_journal",
    "acknowledged_and_not_received",
    "in_journal_and_not_in_jsonl",
    "not_written",
)


def _store(name: str, found: dict[str, Any], commit: str) -> None:
    """Put a part's result into the file beside the others."""
    kept = json.loads(RESULT.read_text())["parts"] if RESULT.exists() else {}
    kept[name] = {"conditions": measure_conditions(0) | {"commit": commit}, "found": found}
    durable.write_bytes(RESULT, json.dumps({"protocol": __doc__, "parts": kept}, indent=2).encode() + b"\n")


def latency(folder: Path, scale: Scale) -> dict[str, Any]:
    """What a step of the loop (slot, verdict, sinks, drift, status) adds to the bare detector, frame by frame in turn."""
    bundle, images = real_bundle(folder)
    watch = Watch(folder / "none.toml", make_config(_tables(bundle, folder) | {"status": str(folder / "status.json")}))
    detector = watch.judge.detector
    decoded = [read_frame(path, detector.bundle.manifest.preprocess) for path in list_images([images])]
    bare, whole, good = [], [], []
    for frame in itertools.islice(itertools.cycle(decoded), scale.latency_frames):
        begin = time.perf_counter()
        detector(frame)
        middle = time.perf_counter()
        watch.reader.slot.put(Job(frame))
        event = watch.step()
        good.append(event is not None and event.outcome == "accept")
        bare.append((middle - begin) * 1e3)
        whole.append((time.perf_counter() - middle) * 1e3)
    left = watch.sinks.close(time.monotonic() + 60)
    watch.drift.close()
    detector.close()
    line = Line(
        folder / "line", bundle, {"kind": "images", "location": str(_many(images, folder, scale.latency_frames))}
    )
    line.start()
    begin = time.perf_counter()
    assert line.process is not None
    line.process.wait(3600)
    seconds = time.perf_counter() - begin
    times, accepted = (np.array(bare), np.array(whole)), np.array(good)
    return {
        "frames": len(bare),
        "bare_p50_ms": round(median(bare), 3),
        "loop_p50_ms": round(median(whole), 3),
        **_added(*times),
        "accepted": {"frames": int(accepted.sum()), **_added(times[0][accepted], times[1][accepted])},
        "process_frames_per_s": round(line.status()["frames"] / seconds, 1),
        "bare_frames_per_s": round(1e3 / median(bare), 1),
        "not_written": left,
    }


def _added(bare: Any, whole: Any) -> dict[str, Any]:
    """Share in percent, with the interval of 95 % from drawing blocks of 20 frames again."""
    blocks = np.arange(len(bare)) // 20
    rng, drawn = np.random.default_rng(0), []
    for _ in range(1000):
        pick = np.concatenate([np.flatnonzero(blocks == b) for b in rng.integers(0, blocks[-1] + 1, blocks[-1] + 1)])
        drawn.append(100 * (np.median(whole[pick]) / np.median(bare[pick]) - 1))
    share = 100 * (np.median(whole) / np.median(bare) - 1)
    interval = [round(float(value), 2) for value in np.percentile(drawn, (2.5, 97.5))]
    return {"added_percent": round(float(share), 2), "added_percent_95": interval}


def _many(images: Path, folder: Path, count: int) -> Path:
    """A folder of `count` links to the images."""
    (folder / "in").mkdir()
    paths = itertools.cycle(list_images([images]))
    for number in range(count):
        path = next(paths)
        (folder / f"in/{number:06d}{path.suffix}").symlink_to(path.resolve())
    return folder / "in"


def _tables(bundle: Path, folder: Path) -> dict[str, Any]:
    return {
        "source": {"location": str(folder), "kind": "images"},
        "recipe": {"bundle": str(bundle), "name": RECIPE},
        "journal": {"path": str(folder / "journal.sqlite"), "max_rows": 100_000},
        "jsonl": {"path": str(folder / "verdicts.jsonl")},
    }


def start(folder: Path, scale: Scale) -> dict[str, Any]:
    """From the command to READY and to the first row of the journal, wall time, with the CPU time that it took."""
    bundle, images = real_bundle(folder)
    line = Line(folder / "line", bundle, {"kind": "images", "location": str(_many(images, folder, 500))})
    ready, first, cpu = [], [], []
    for _ in range(scale.starts):
        before, begin = line.last(), time.perf_counter()
        ready.append(line.start())
        wait_for(lambda before=before: line.last() > before, "a first row")
        first.append(time.perf_counter() - begin)
        assert line.process is not None
        ticks = Path(f"/proc/{line.process.pid}/stat").read_text().rpartition(") ")[2].split()
        cpu.append((int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK"))
        line.kill()
    return {
        "starts": scale.starts,
        **_spread("ready_s", ready),
        **_spread("first_verdict_s", first),
        **_spread("cpu_s", cpu),
    }


def _spread(name: str, values: list[float]) -> dict[str, float]:
    return {
        f"{name}_least": round(min(values), 3),
        f"{name}_median": round(median(values), 3),
        f"{name}_most": round(max(values), 3),
    }


def memory(folder: Path, scale: Scale) -> dict[str, Any]:
    """Resident memory over the frames, until memory_s is over; a graph so small that a million end in minutes."""
    bundle, images = tiny_bundle(folder)
    values = _tables(bundle, folder)
    # Commits of 300 rows: this part is of memory, and the disk of 30.
    values["journal"] |= {"batch": 300, "queue": 3000}
    del values["jsonl"]
    config = make_config(values)
    judge, sinks = Judge(config.recipe, config.verdict), Sinks(config)
    decoded = [read_frame(path, judge.detector.bundle.manifest.preprocess) for path in list_images([images])]
    resident, every, begin = [], scale.memory_frames // 20, time.perf_counter()
    for number, frame in enumerate(itertools.islice(itertools.cycle(decoded), scale.memory_frames), 1):
        sinks.offer(judge(frame), frame)
        while number % 30 == 0 and sinks.queued > 2000:
            # It comes faster than from any camera: the disk is given its time.
            time.sleep(0.001)
        if number % every == 0:
            resident.append(round(resident_mib() or 0.0, 1))
        if time.perf_counter() > begin + scale.memory_s:
            break
    seconds = time.perf_counter() - begin
    left = sinks.close(time.monotonic() + 60)
    judge.close()
    resident.append(round(resident_mib() or 0.0, 1))
    half = len(resident) // 2
    return {
        "frames": number,
        "seconds": round(seconds, 1),
        "resident_mib": resident,
        "second_half_growth_mib": round(max(resident[half:]) - min(resident[half:]), 1),
        "events_dropped": sum(int(str(sink["dropped"])) for sink in sinks.status().values()),
        "not_written": left,
    }


def kills(folder: Path, scale: Scale) -> dict[str, Any]:
    """kill -9 at a random moment after the first row of each life."""
    bundle, images = tiny_bundle(folder)
    line = Line(folder / "line", bundle, {"kind": "images", "location": str(_many(images, folder, 20_000))})
    chance = random.Random(0)
    for _ in range(scale.kills):
        before = line.last()
        line.start()
        wait_for(lambda before=before: line.last() > before, "a first row")
        time.sleep(chance.uniform(0, 0.3))
        line.kill()
    return {"kills": scale.kills} | line.whole()


def outage(folder: Path, scale: Scale) -> dict[str, Any]:
    """Broker, disk and RTSP server away in turn."""
    bundle, _ = tiny_bundle(folder)
    return outages(bundle, folder, scale.rounds, scale.phase_s)


def day(folder: Path, scale: Scale) -> dict[str, Any]:
    """A day of one frame a second at 50 times its speed through a GStreamer camera, with every file sink and retention."""
    bundle, _ = tiny_bundle(folder)
    pipeline = "videotestsrc is-live=true pattern=ball ! video/x-raw,framerate=50/1"
    tables = {
        "journal": {"path": str(folder / "journal.sqlite"), "max_rows": 20_000},
        "jsonl": {"path": str(folder / "verdicts.jsonl")},
        "images": {"path": str(folder / "pictures"), "which": "all", "max_mib": 20},
    }
    source = {"kind": "gstreamer", "location": pipeline, "size": [160, 120], "frozen_after_s": 5.0}
    line, begin, resident = Line(folder / "line", bundle, source, **tables), time.perf_counter(), []
    line.start()
    while sum(line.status().get(name, 0) for name in ("frames", "dropped_frames")) < scale.day_frames:
        time.sleep(max(1.0, scale.day_frames / 50 / 60))
        resident.append(round(line.resident_mib(), 1))
    seconds = time.perf_counter() - begin
    code, told = line.kill(signal.SIGTERM), line.status()
    written = [json.loads(one) for one in (folder / "verdicts.jsonl").read_text().splitlines()]
    size = sum(path.stat().st_size for path in (folder / "pictures").rglob("*.jpg"))
    return line.whole() | {
        "frames_of_camera": scale.day_frames,
        "frames": told["frames"],
        "dropped_frames": told["dropped_frames"],
        "seconds": round(seconds, 1),
        "exit": code,
        "outcomes": told["outcomes"],
        "latency_ms": told["latency_ms"],
        "judged_and_not_in_journal": told["frames"] - sum(one["score"] is not None for one in written),
        "events_dropped": told["sinks"]["journal"]["dropped"] + told["sinks"]["jsonl"]["dropped"],
        "pictures_mib": round(size / 2**20, 1),
        "resident_mib": resident,
    }


PARTS: dict[str, Callable[[Path, Scale], dict[str, Any]]] = {
    "latency": latency,
    "start": start,
    "memory": memory,
    "outages": outage,
    "kills": kills,
    "day": day,
}


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
