"""One run: open, measure, and write down the conditions."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from orinspect_edge_runtime.bench import clean, cold, energy, memory, stages
from orinspect_edge_runtime.bench.latency import summarize
from orinspect_edge_runtime.bench.plan import SERVER, BenchOptions
from orinspect_edge_runtime.bench.scenarios import Progress, Timed, time_backends
from orinspect_edge_runtime.bench.server import WallClock
from orinspect_edge_runtime.bench.subject import find_subject, open_subject
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.golden import read_golden
from orinspect_edge_runtime.telemetry import Meter, Recorder, Standing, find_meter

FORMAT = 2
IDLE_S = 2.0
MEASURES = "graph only: frame in memory to score, map and embedding; decode and resize not included"
MEASURES_SERVER = f"{MEASURES}; from a frame's arrival, waiting in the queue included"


def run_bench(
    bundle: Bundle, options: BenchOptions, progress: Progress | None = None, meter: Meter | None = None
) -> dict[str, Any]:
    """Measure; the result is what docs/bench.md describes. meter: None to look for the one of this computer.

    The precisions take turns in rounds of ten, so that a busy moment of the machine falls on all of them.

    Raises RecipeError or InputError for what the bundle does not hold, ImageError for images that cannot be read.
    """
    precisions = options.precisions or bundle.manifest.precisions
    golden = read_golden(bundle)
    subject = find_subject(bundle, options, golden)
    images = stages.image_files(options.images, bundle.manifest.preprocess)
    conditions = measure_conditions(options.threads)
    meter = meter or find_meter()
    idle = _sample_idle(meter)
    before, began, resident = _standing(meter), time.perf_counter(), memory.resident_mib()
    frames = np.resize(np.asarray(golden["frames"], np.uint8), (options.frames, *golden["frames"].shape[1:]))
    with contextlib.ExitStack() as stack:
        backends = {p: stack.enter_context(open_subject(bundle, p, subject, options)) for p in precisions}
        with _recording(meter) as recorder:
            timed = time_backends(backends, frames, options, WallClock(), progress or (lambda _: None))
        after = _standing(meter)
        names = {p: backend.description for p, backend in backends.items()}
        stage_times = stages.measure_stages(bundle, subject, backends, images, frames[0])
        resident_after = memory.resident_mib()
    result: dict[str, Any] = {
        "format": FORMAT,
        "scenario": options.scenario,
        "measures": MEASURES_SERVER if options.scenario == SERVER else MEASURES,
        "head": subject.head,
        "recipe": options.recipe,
        "bank_rows": subject.arrays["bank"].shape[1] if "bank" in subject.arrays else 0,
        "model_size": [bundle.manifest.preprocess.height, bundle.manifest.preprocess.width],
        "encoder": bundle.manifest.encoder.name,
        "batch": options.frames,
        "conditions": conditions,
        **_timed_result(timed, options, names, began),
        "stages": stage_times,
        "cold_start": cold.cold_starts(bundle.path, options, precisions, images),
        "memory_mib": {"before": resident, "after": resident_after, "peak": memory.peak_resident_mib()},
        "telemetry": {"measured": False, "note": energy.NOT_MEASURED},
    }
    if meter is not None and recorder is not None and idle is not None:
        spans = {p: one.spans for p, one in timed.items()}
        served = {p: options.frames * sum(map(len, one.rounds)) for p, one in timed.items()}
        result["telemetry"] = energy.telemetry_result(meter, recorder, idle, (before, after), spans, served, began)
    reasons = clean.why_not_clean(result)
    return result | {"clean": not reasons, "why_not": reasons}


def _timed_result(
    timed: Mapping[str, Timed], options: BenchOptions, names: Mapping[str, str], began: float
) -> dict[str, Any]:
    """Everything that was timed. Raw times are in whole microseconds, begin and end of the rounds count from `began`."""
    rounds = {p: one.rounds for p, one in timed.items()}
    kept = {p: _kept_fps(one) if one.served else None for p, one in timed.items()}
    result: dict[str, Any] = {
        "latencies": [asdict(summarize(p, rounds, options.frames, names[p], kept[p])) for p in timed],
        "warm_up": {p: asdict(one.warm_up) for p, one in timed.items()},
        "times_ms": {p: [[round(value, 3) for value in values] for values in rounds[p]] for p in timed},
        "round_spans_s": {p: [[round(at - began, 4) for at in span] for span in one.spans] for p, one in timed.items()},
    }
    if options.scenario == SERVER:
        result["server"] = {p: _server_result(one, options) for p, one in timed.items()}
    return result


def _server_result(one: Timed, options: BenchOptions) -> dict[str, Any]:
    """What was asked for, what was drawn, what was kept, and the share within the bound."""
    latencies = np.concatenate([part.latencies_ms for part in one.served])
    waits = np.concatenate([part.waits_ms for part in one.served])
    row: dict[str, Any] = {
        "rate": one.rate,
        "drawn_fps": len(latencies) / sum(part.arrivals_s[-1] for part in one.served),
        "kept_fps": _kept_fps(one),
        "bound_ms": options.bound_ms,
        "within_bound": None if options.bound_ms is None else float(np.mean(latencies <= options.bound_ms)),
        "p99_ms": float(np.percentile(latencies, 99)),
        "wait_p50_ms": float(np.percentile(waits, 50)),
        "wait_p99_ms": float(np.percentile(waits, 99)),
        "seed": options.seed,
    }
    if one.search is not None:
        row |= {
            "largest_rate": one.search.rate,
            "tries": [list(t) for t in one.search.tries],
            "confirmations": [list(t) for t in one.search.confirmations],
        }
    return row


def _kept_fps(one: Timed) -> float:
    return sum(len(part.latencies_ms) for part in one.served) / sum(part.seconds for part in one.served)


def _sample_idle(meter: Meter | None) -> Recorder | None:
    """What the board draws before anything of ours runs on it."""
    if meter is None:
        return None
    with Recorder(meter) as idle:
        time.sleep(IDLE_S)
    return idle


def _standing(meter: Meter | None) -> Standing:
    return Standing() if meter is None else meter.standing()


@contextlib.contextmanager
def _recording(meter: Meter | None) -> Iterator[Recorder | None]:
    if meter is None:
        yield None
        return
    with Recorder(meter) as recorder:
        yield recorder
