"""Cold start: a fresh process, from its start to its first verdict.

Files are in the page cache (the bundle was just read), so this is a restart of the service, not of the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from orinspect_edge_runtime.bench import memory
from orinspect_edge_runtime.bench.plan import BenchOptions
from orinspect_edge_runtime.errors import InputError

MOST_SECONDS = 600.0
CHILD = "from orinspect_edge_runtime.bench.cold import first_verdict; first_verdict()"


def cold_starts(
    bundle: Path, options: BenchOptions, precisions: tuple[str, ...], images: list[Path]
) -> dict[str, list[dict[str, float | None]]]:
    """By precision, one row a fresh process: wall_s, cpu_s and peak_mib (resident). Empty when options want none.

    Raises InputError when a process fails, with its last words.
    """
    rows = {}
    for precision in precisions if options.cold_starts else ():
        request = {
            "bundle": str(bundle),
            "precision": precision,
            "image": str(images[0]) if images else None,
            "options": {name: getattr(options, name) for name in ("head", "recipe", "threads", "backend")},
        }
        rows[precision] = [_start(request) for _ in range(options.cold_starts)]
    return rows


def _start(request: dict[str, Any]) -> dict[str, float | None]:
    # A file of the current folder must not pass for a module.
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", CHILD, json.dumps(request)]
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=MOST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"cold start: no verdict within {MOST_SECONDS:.0f} s; pass --cold-starts 0") from error
    if done.returncode:
        words = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise InputError(f"cold start of {request['precision']} failed ({words}); pass --cold-starts 0 to go without")
    told = json.loads(done.stdout.splitlines()[-1])
    # Linux has one monotonic clock for all processes.
    return {"wall_s": told["at"] - began, "cpu_s": told["cpu_s"], "peak_mib": told["peak_mib"]}


def first_verdict() -> None:
    """The fresh process: does what its argument says and prints when it was done."""
    from orinspect_edge_runtime.bench.subject import find_subject, open_subject
    from orinspect_edge_runtime.bundle import Bundle
    from orinspect_edge_runtime.detector import Detector
    from orinspect_edge_runtime.golden import read_golden
    from orinspect_edge_runtime.preprocess import fit_to_model, read_frame

    request = json.loads(sys.argv[1])
    options = BenchOptions(**request["options"])
    bundle = Bundle.open(request["bundle"])
    # A recipe brings its own inputs: then golden is only read for want of an image.
    golden = read_golden(bundle) if options.recipe is None or request["image"] is None else {}
    subject = find_subject(bundle, options, golden)
    with open_subject(bundle, request["precision"], subject, options) as backend:
        spec = bundle.manifest.preprocess
        pixels = (
            golden["frames"][0]
            if request["image"] is None
            else read_frame(Path(request["image"]), spec, reduced=True).pixels
        )
        outputs = backend.run(fit_to_model(pixels, spec)[None])
        if subject.recipe is not None:
            Detector(bundle, subject.recipe, backend).verdict(outputs, "cold start")
        told = {"at": time.monotonic(), "cpu_s": time.process_time(), "peak_mib": memory.peak_resident_mib()}
    print(json.dumps(told))
