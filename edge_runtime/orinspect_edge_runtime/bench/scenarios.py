"""The timed part of a run: calls in alternating rounds, or arrivals that are served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.backends import Backend
from orinspect_edge_runtime.bench.plan import ROUND_RUNS, SERVER, BenchOptions
from orinspect_edge_runtime.bench.server import Clock, RateSearch, Served, find_rate, poisson_arrivals, serve
from orinspect_edge_runtime.bench.warmup import WarmUp, warm_up

# Arrivals in a row before the next precision has its turn: a queue needs time to grow.
SERVER_TURN = 500
Frames = NDArray[np.uint8]
Progress = Callable[[float], None]


@dataclass
class Timed:
    """Of one precision. rounds: milliseconds a call. spans: begin and end of each round, seconds of the clock.

    served, rate (frames/s asked for) and search: of the server scenario only.
    """

    warm_up: WarmUp
    rounds: list[list[float]] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)
    rate: float = 0.0
    search: RateSearch | None = None


def time_backends(
    backends: Mapping[str, Backend], frames: Frames, options: BenchOptions, clock: Clock, progress: Progress
) -> dict[str, Timed]:
    """Warm every backend up, then time them in turns. Result by precision."""
    calls = {precision: _call(backend, frames) for precision, backend in backends.items()}
    timed = {precision: Timed(warm_up(call, clock.now)) for precision, call in calls.items()}
    (_serve_in_turns if options.scenario == SERVER else _time_in_turns)(calls, timed, options, clock, progress)
    return timed


def _call(backend: Backend, frames: Frames) -> Callable[[], object]:
    return lambda: backend.run(frames)


def _time_in_turns(
    calls: Mapping[str, Callable[[], object]],
    timed: Mapping[str, Timed],
    options: BenchOptions,
    clock: Clock,
    progress: Progress,
) -> None:
    rounds = -(-options.runs // ROUND_RUNS)
    for number in range(rounds):
        for precision, call in calls.items():
            # Untimed: the caches are full of the other precision's weights.
            call()
            start = clock.now()
            timed[precision].rounds.append(_time_runs(call, clock))
            timed[precision].spans.append((start, clock.now()))
        progress((number + 1) / rounds)


def _serve_in_turns(
    calls: Mapping[str, Callable[[], object]],
    timed: Mapping[str, Timed],
    options: BenchOptions,
    clock: Clock,
    progress: Progress,
) -> None:
    for precision, call in calls.items():
        timed[precision].rate = options.rate or 0.0
        if options.find_rate and options.bound_ms is not None:
            service_s = float(np.median(_time_runs(call, clock))) / 1e3
            search = find_rate(call, service_s, options.bound_ms, options.runs, options.seed, clock)
            timed[precision].search = search
            # Without --rate the one that was found is measured once more, with other arrivals.
            timed[precision].rate = options.rate or search.rate or search.tries[-1][0]
    turns = -(-options.runs // SERVER_TURN)
    for turn in range(turns):
        count = min(SERVER_TURN, options.runs - turn * SERVER_TURN)
        for precision, call in calls.items():
            one = timed[precision]
            start = clock.now()
            served = serve(call, poisson_arrivals(one.rate, count, options.seed + 1 + turn), clock)
            one.spans.append((start, clock.now()))
            one.served.append(served)
            values = served.latencies_ms
            one.rounds += [list(values[at : at + ROUND_RUNS]) for at in range(0, count, ROUND_RUNS)]
        progress((turn + 1) / turns)


def _time_runs(call: Callable[[], object], clock: Clock) -> list[float]:
    """Milliseconds of each of ROUND_RUNS calls."""
    times = []
    for _ in range(ROUND_RUNS):
        start = clock.now()
        call()
        times.append((clock.now() - start) * 1e3)
    return times
