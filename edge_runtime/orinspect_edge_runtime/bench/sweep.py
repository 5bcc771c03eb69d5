"""Many runs: every precision at every batch size, in every power mode asked for, as offline throughput."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

from orinspect_edge_runtime.bench.measure import FORMAT, run_bench
from orinspect_edge_runtime.bench.plan import OFFLINE, BenchOptions
from orinspect_edge_runtime.bench.scenarios import Progress
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.telemetry import Meter, find_meter


def parse_batches(text: str) -> tuple[int, ...]:
    """ "1,2,8" -> (1, 2, 8). Raises InputError for anything else."""
    try:
        batches = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--batches {text}: whole numbers with commas between, 1,2,4,8") from error
    for batch in batches:
        BenchOptions(batch=batch)
    return tuple(dict.fromkeys(batches))


def run_sweep(
    bundle: Bundle,
    options: BenchOptions,
    batches: tuple[int, ...],
    modes: tuple[str, ...] = (),
    progress: Progress | None = None,
    meter: Meter | None = None,
) -> dict[str, Any]:
    """One result a power mode and batch size, each over all precisions in alternating rounds.

    Cold starts and stages are left out. modes: names of power modes; none: only the one in force. The mode in force
    before is back afterwards. meter: None to look for the one of this computer.

    Raises InputError where there are no power modes to choose from, and as `run_bench` does.
    """
    meter = meter or find_meter()
    if modes and meter is None:
        raise InputError("--power-modes: this computer has none that orinspect knows; leave the option out")
    results: list[dict[str, Any]] = []
    total = len(batches) * max(len(modes), 1)
    for mode in modes or (None,):
        with contextlib.nullcontext() if mode is None or meter is None else meter.power_mode(mode):
            for batch in batches:
                chosen = dataclasses.replace(options, scenario=OFFLINE, batch=batch, images=None, cold_starts=0)
                found = run_bench(bundle, chosen, _part(progress, len(results), total), meter)
                results.append(found | {"power_mode": mode})
    return {"format": FORMAT, "kind": "sweep", "results": results}


def _part(progress: Progress | None, number: int, of: int) -> Progress | None:
    return None if progress is None else lambda share: progress((number + share) / of)
