"""What `orinspect watch` costs: added latency, start, memory over many frames, and kill -9 at random moments.

    python benchmarks/watch.py BUNDLE IMAGES --recipe NAME            writes benchmarks/results/watch.json
    python benchmarks/watch.py BUNDLE IMAGES --recipe NAME --quick    fewer frames and kills; prints only

The loop runs as the product's own process on a folder of links to IMAGES. Bare inference is the detector called on decoded
frames, in turn with the loop's own judging and sinks of the same frames. Says nothing about a Jetson.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from revision import revision

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.bench.memory import resident_mib
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.preprocess import list_images, read_frame
from orinspect_edge_runtime.watch.config import WatchConfig, make_config
from orinspect_edge_runtime.watch.judge import Judge
from orinspect_edge_runtime.watch.sinks import Sinks

RESULT = Path(__file__).parent / "results/watch.json"
WATCH = "from orinspect_edge_runtime.watch.command import watch; watch(standalone_mode=False)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    frames, kills = (300, 5) if chosen.quick else (5000, 200)
    with tempfile.TemporaryDirectory(prefix="orinspect-watch-") as folder:
        place = Path(folder)
        values = tables(chosen.bundle.resolve(), chosen.recipe, place)
        found = loop(make_config(values), chosen.images, frames)
        found |= lives(values, chosen.images, place, kills)
    print(json.dumps(found, indent=2))
    if not chosen.quick:
        result = {"protocol": __doc__, "conditions": measure_conditions(0) | {"commit": revision()}, "found": found}
        durable.write_bytes(RESULT, json.dumps(result, indent=2).encode() + b"\n")
    return int(bool(found["torn"] or found["duplicate_ids"]))


def tables(bundle: Path, recipe: str, place: Path) -> dict[str, Any]:
    return {
        "source": {"location": str(place / "in"), "kind": "images"},
        "recipe": {"bundle": str(bundle), "name": recipe},
        "journal": {"path": str(place / "journal.sqlite")},
        "status": str(place / "status.json"),
    }


def loop(config: WatchConfig, images: Path, frames: int) -> dict[str, Any]:
    """Medians of the bare detector and of judging with sinks, taken in turn; memory over the frames."""
    judge, sinks = Judge(config.recipe, config.verdict), Sinks(config)
    decoded = [read_frame(path, judge.detector.bundle.manifest.preprocess) for path in list_images([images])[:50]]
    bare, whole, memory = [], [], []
    for number, frame in zip(range(frames), itertools.cycle(decoded), strict=False):
        begin = time.perf_counter()
        judge.detector(frame)
        middle = time.perf_counter()
        sinks.offer(judge(frame))
        bare.append((middle - begin) * 1e3)
        whole.append((time.perf_counter() - middle) * 1e3)
        if number % (frames // 10) == frames // 10 - 1:
            memory.append(resident_mib() or 0.0)
    left = sinks.close(time.monotonic() + 30)
    added = median(whole) - median(bare)
    return {
        "frames": frames,
        "bare_p50_ms": round(median(bare), 3),
        "loop_p50_ms": round(median(whole), 3),
        "added_ms": round(added, 3),
        "added_percent": round(100 * added / median(bare), 2),
        "resident_mib": [round(one, 1) for one in memory],
        "not_written": left,
    }


def lives(values: dict[str, Any], images: Path, place: Path, kills: int) -> dict[str, Any]:
    """Start the process over and over and kill it at random moments after its first verdict."""
    (place / "in").mkdir()
    for number, path in enumerate(list_images([images])):
        (place / f"in/{number}{path.suffix}").symlink_to(path.resolve())
    values = values | {"journal": {"path": str(place / "killed.sqlite")}}
    (place / "watch.toml").write_text(toml(values))
    starts, chance = [], random.Random(0)
    for _ in range(kills):
        before, begin = rows(place), time.perf_counter()
        with subprocess.Popen([sys.executable, "-c", WATCH, place / "watch.toml"], stderr=subprocess.DEVNULL) as child:
            while rows(place) == before and child.poll() is None:
                time.sleep(0.005)
            starts.append(time.perf_counter() - begin)
            time.sleep(chance.uniform(0, 0.5))
            child.kill()
    with sqlite3.connect(place / "killed.sqlite") as database:
        torn = database.execute("PRAGMA integrity_check").fetchone() != ("ok",)
        count, different = database.execute("SELECT count(*), count(DISTINCT id) FROM event").fetchone()
    first = {
        "start_to_first_row_s_median": round(median(starts), 3),
        "start_to_first_row_s_most": round(max(starts), 3),
    }
    return first | {"kills": kills, "rows": count, "duplicate_ids": count - different, "torn": torn}


def rows(place: Path) -> int:
    try:
        with sqlite3.connect(f"file:{place / 'killed.sqlite'}?mode=ro", uri=True) as database:
            return int(database.execute("SELECT ifnull(max(seq), 0) FROM event").fetchone()[0])
    except sqlite3.Error:
        return 0


def toml(values: dict[str, Any]) -> str:
    lines = [f"status = {json.dumps(values['status'])}"]
    for name, table in values.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
