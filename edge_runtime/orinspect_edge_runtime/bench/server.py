"""The server scenario: frames arrive by chance, and wait their turn.

Open loop: the times of arrival are drawn beforehand and never wait for the server, so a slow server grows a queue, and
the queue counts. (A loop that sends the next frame when the last one is done would hide exactly that.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# Below this a sleep is less exact than the wait is long: it is spent looking at the clock.
SPIN_S = 0.002
# Halvings of the range of rates: the answer is within 1/64 of what the server can do at all.
SEARCH_STEPS = 6
# Far from the seeds of the turns that are measured afterwards.
CONFIRMING_SEED = 1_000_003


class Clock(Protocol):
    """Seconds, and a wait until one of them."""

    def now(self) -> float: ...

    def wait_until(self, moment: float) -> None: ...


class WallClock:
    """time.perf_counter and a sleep that ends by looking at it."""

    def now(self) -> float:
        """Seconds of time.perf_counter."""
        return time.perf_counter()

    def wait_until(self, moment: float) -> None:
        """Return when `now` has reached the moment, at once when it has passed."""
        left = moment - time.perf_counter()
        if left > SPIN_S:
            time.sleep(left - SPIN_S)
        while time.perf_counter() < moment:
            pass


@dataclass(frozen=True)
class Served:
    """latencies_ms: from arrival to answer, in the order of arrival. waits_ms: the part of it before the call began.

    arrivals_s: since the beginning. seconds: from the beginning to the last answer.
    """

    latencies_ms: tuple[float, ...]
    waits_ms: tuple[float, ...]
    arrivals_s: tuple[float, ...]
    seconds: float

    @property
    def kept_fps(self) -> float:
        """Frames answered a second."""
        return len(self.latencies_ms) / self.seconds

    def percentile_ms(self, q: float) -> float:
        """Percentile of the latencies, ms."""
        return float(np.percentile(self.latencies_ms, q))

    def within(self, bound_ms: float) -> float:
        """Share of the frames whose latency was at most the bound."""
        return float(np.mean(np.array(self.latencies_ms) <= bound_ms))


@dataclass(frozen=True)
class RateSearch:
    """rate: the largest one whose p99 kept the bound twice, with other arrivals each time, frames/s; None when none did.

    tries and confirmations: (rate, p99 ms) in the order they were made.
    """

    rate: float | None
    tries: tuple[tuple[float, float], ...]
    confirmations: tuple[tuple[float, float], ...]


def poisson_arrivals(rate: float, count: int, seed: int) -> NDArray[np.float64]:
    """Seconds of arrival, ascending: a Poisson process of `rate` frames a second."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))


def serve(call: Callable[[], object], arrivals: NDArray[np.float64], clock: Clock) -> Served:
    """Answer frames one after the other, first come first served, each no sooner than it arrives."""
    start = clock.now()
    latencies, waits = [], []
    done = start
    for arrival in arrivals:
        due = start + float(arrival)
        clock.wait_until(due)
        begin = clock.now()
        call()
        done = clock.now()
        latencies.append((done - due) * 1e3)
        waits.append((begin - due) * 1e3)
    return Served(tuple(latencies), tuple(waits), tuple(map(float, arrivals)), done - start)


def find_rate(
    call: Callable[[], object], service_s: float, bound_ms: float, count: int, seed: int, clock: Clock
) -> RateSearch:
    """The largest rate whose p99 over `count` arrivals keeps the bound, by halving up to what the server can do.

    service_s: median time of a call. Every try draws the same arrivals, stretched to its rate; what kept the bound must
    keep it with others too, else the next smaller one is taken: the luckiest of many tries is no answer.
    """

    def p99_at(rate: float, drawn: int) -> float:
        return serve(call, poisson_arrivals(rate, count, drawn), clock).percentile_ms(99)

    low, high = 0.0, 1 / service_s
    tries: list[tuple[float, float]] = []
    for _ in range(SEARCH_STEPS):
        rate = (low + high) / 2
        tries.append((rate, p99_at(rate, seed)))
        low, high = (rate, high) if tries[-1][1] <= bound_ms else (low, rate)
    kept = sorted((rate for rate, p99 in tries if p99 <= bound_ms), reverse=True)
    # When none of them keeps it again, smaller ones are tried: a busy moment must not read as "never".
    smaller = [kept[-1] / 2**step for step in range(1, SEARCH_STEPS + 1)] if kept else []
    found, confirmations = None, list[tuple[float, float]]()
    for rate in (*kept, *smaller):
        confirmations.append((rate, p99_at(rate, seed + CONFIRMING_SEED)))
        if confirmations[-1][1] <= bound_ms:
            found = rate
            break
    return RateSearch(found, tuple(tries), tuple(confirmations))
