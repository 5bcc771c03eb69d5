"""Latency of a bundle's graphs: warm-up, interleaved rounds, percentiles, and the conditions beside them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.backends import Backend, open_backend
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.errors import InputError, RecipeError
from orinspect_edge_runtime.golden import head_arrays, read_golden
from orinspect_edge_runtime.heads import head_inputs
from orinspect_edge_runtime.scorers import SCORERS

SCENARIOS = {"single-stream": 1, "offline": 8}
WARM_UP_RUNS = 5
ROUND_RUNS = 10


@dataclass(frozen=True)
class BenchOptions:
    """scenario: single-stream (one frame at a time, latency) or offline (batches, throughput). runs: a precision."""

    precisions: tuple[str, ...] = ()
    scenario: str = "single-stream"
    head: str = "patchcore"
    recipe: str | None = None
    runs: int = 100
    threads: int = 0
    backend: str = "auto"

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise InputError(f"scenario {self.scenario!r} is not known: use one of {', '.join(SCENARIOS)}")
        if self.runs < ROUND_RUNS:
            raise InputError(f"--runs {self.runs}: at least {ROUND_RUNS} are needed for a percentile")


@dataclass(frozen=True)
class _Head:
    name: str
    arrays: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Latency:
    """Of one precision, milliseconds a call with `batch` frames. ratio_p50: fp32's p50 over this one's, same run."""

    precision: str
    batch: int
    runs: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    least_ms: float
    mean_ms: float
    frames_per_second: float
    ratio_p50: float | None
    runs_on: str


def run_bench(bundle: Bundle, options: BenchOptions, progress: Callable[[float], None] | None = None) -> dict[str, Any]:
    """Measure the graph (frames in memory to score, map and embedding in memory); decode and resize are not in it.

    The precisions take turns in rounds of ten, so that a busy moment of the machine falls on all of them.
    """
    precisions = options.precisions or bundle.manifest.precisions
    golden = read_golden(bundle)
    head = _head_arrays(bundle, options, golden)
    conditions = measure_conditions(options.threads)
    frames = np.resize(golden["frames"], (SCENARIOS[options.scenario], *golden["frames"].shape[1:]))
    with contextlib.ExitStack() as stack:
        backends = {p: stack.enter_context(_open(bundle, p, head.name, options)) for p in precisions}
        for backend in backends.values():
            backend.set_inputs(head.arrays)
            _time_runs(backend, frames, WARM_UP_RUNS)
        times: dict[str, list[float]] = {p: [] for p in precisions}
        rounds = -(-options.runs // ROUND_RUNS)
        for number in range(rounds):
            for precision, backend in backends.items():
                times[precision] += _time_runs(backend, frames, ROUND_RUNS)
            if progress is not None:
                progress((number + 1) / rounds)
        names = {p: backend.description for p, backend in backends.items()}
    return {
        "scenario": options.scenario,
        "measures": "graph only: frame in memory to score, map and embedding; decode and resize not included",
        "head": head.name,
        "bank_rows": head.arrays["bank"].shape[1] if "bank" in head.arrays else 0,
        "model_size": [bundle.manifest.preprocess.height, bundle.manifest.preprocess.width],
        "encoder": bundle.manifest.encoder.name,
        "conditions": conditions,
        "latencies": [asdict(_latency(p, times, len(frames), names[p])) for p in precisions],
    }


def _open(bundle: Bundle, precision: str, head: str, options: BenchOptions) -> Backend:
    spec = bundle.manifest.graph(precision, head)
    return open_backend(bundle.read(spec.file), spec, name=options.backend, threads=options.threads, bundle=bundle.path)


def _head_arrays(bundle: Bundle, options: BenchOptions, golden: dict[str, NDArray[Any]]) -> _Head:
    """Head and inputs to measure: of the recipe when one is named, the golden ones otherwise."""
    if options.recipe is None:
        return _Head(options.head, head_arrays(golden, options.head))
    recipe = bundle.recipe(options.recipe)
    scorer = SCORERS[recipe.scorer]
    if not scorer.has_map:
        raise RecipeError(f"recipe {options.recipe!r} has no head in the graph; name a patchcore or padim recipe")
    names = [spec.name for spec in head_inputs(scorer.head, bundle.manifest.encoder)]
    return _Head(scorer.head, {name: recipe.arrays[name] for name in names})


def _time_runs(backend: Backend, frames: NDArray[np.uint8], runs: int) -> list[float]:
    """Milliseconds of each of `runs` calls."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        backend.run(frames)
        times.append((time.perf_counter() - start) * 1e3)
    return times


def _latency(precision: str, times: dict[str, list[float]], batch: int, runs_on: str) -> Latency:
    values = np.array(times[precision])
    p50, p90, p99 = (float(np.percentile(values, q)) for q in (50, 90, 99))
    return Latency(
        precision=precision,
        batch=batch,
        runs=len(values),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        least_ms=float(values.min()),
        mean_ms=float(values.mean()),
        frames_per_second=batch * 1e3 / float(values.mean()),
        ratio_p50=float(np.median(times["fp32"])) / p50 if "fp32" in times else None,
        runs_on=runs_on,
    )
