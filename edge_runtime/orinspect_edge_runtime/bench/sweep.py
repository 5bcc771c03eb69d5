"""Many runs: every precision at every batch size, as offline throughput."""

from __future__ import annotations

import dataclasses
from typing import Any

from orinspect_edge_runtime.bench.measure import FORMAT, run_bench
from orinspect_edge_runtime.bench.plan import OFFLINE, BenchOptions
from orinspect_edge_runtime.bench.scenarios import Progress
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import InputError


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
    bundle: Bundle, options: BenchOptions, batches: tuple[int, ...], progress: Progress | None = None
) -> dict[str, Any]:
    """One result a batch size, each over all precisions in alternating rounds; without cold starts and stages."""
    results = []
    for number, batch in enumerate(batches):
        chosen = dataclasses.replace(options, scenario=OFFLINE, batch=batch, images=None, cold_starts=0)
        results.append(run_bench(bundle, chosen, _part(progress, number, len(batches))))
    return {"format": FORMAT, "kind": "sweep", "results": results}


def _part(progress: Progress | None, number: int, of: int) -> Progress | None:
    return None if progress is None else lambda share: progress((number + share) / of)
