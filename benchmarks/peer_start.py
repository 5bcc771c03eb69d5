"""From the start of a process to its first score of an image file: CPU seconds and the peak of its memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from peer_process import Peer
from peer_turns import Row

OUR_START = """
import sys, time
from orinspect_edge_runtime import Detector
verdict = Detector.load(sys.argv[1], recipe=sys.argv[2], threads=1)(sys.argv[3])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.process_time(), int(peak.split()[1]) / 1024, verdict.score)
"""


def our_start(bundle: Path, recipe: str, image: Path, folder: Path) -> Row:
    """The least time and the highest peak of three starts. folder: for the bytecode."""
    # Installed by pip, modules have their bytecode; run from a source tree they may not.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    command = [sys.executable, "-c", OUR_START, str(bundle), recipe, str(image)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True, env=environment) for _ in range(3)]
    seconds, peaks = zip(*(map(float, run.stdout.split()[:2]) for run in runs), strict=True)
    return {"cpu_s": min(seconds), "peak_mb": max(peaks)}


def their_start(library: str, python: Path, folder: Path, kind: str, file: str, image: Path) -> Row:
    """Of one start, and what the imports had cost by then."""
    with Peer(python, folder, library) as fresh:
        imported = fresh.ask("imports")
        fresh.ask("open_model", key="x", kind=kind, file=file)
        fresh.ask("predict", key="x", image=str(image))
        return fresh.ask("spent") | {f"import_{name}": value for name, value in imported.items()}
