"""Power, temperatures and clocks while something is measured.

This package knows no boards: whoever does offers a reader through the entry-point group `orinspect.telemetry`, a
function without arguments that returns a Meter, or None on a computer that it does not know. Without a meter nothing is
measured, and that is what is said: never 0.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from types import TracebackType
from typing import Protocol

import numpy as np

READERS = "orinspect.telemetry"
# Often enough for a power curve, seldom enough not to be measured itself.
INTERVAL_S = 0.5


@dataclass(frozen=True)
class Reading:
    """One look at the sensors. watts: of the whole board. Temperatures in C by sensor, clocks in MHz.

    alerts: what throttles at this moment, by name. None or empty: not known.
    """

    watts: float | None = None
    temperatures_c: dict[str, float] = field(default_factory=dict)
    gpu_mhz: float | None = None
    cpu_mhz: tuple[float, ...] = ()
    alerts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Standing:
    """What should be the same before and after. power_mode: its name. events: throttling events counted since boot."""

    power_mode: str | None = None
    alerts: tuple[str, ...] = ()
    events: dict[str, int] = field(default_factory=dict)


class Meter(Protocol):
    """The sensors of a board. `read` is called from a thread of its own and must be quick."""

    def read(self) -> Reading:
        """The sensors now."""

    def standing(self) -> Standing:
        """Power mode and throttling counters now."""

    def power_mode(self, name: str) -> AbstractContextManager[None]:
        """A block run in the power mode of that name; afterwards the former one is back. Raises OrinspectError."""

    def throttled_between(self, before: Standing, after: Standing) -> list[str]:
        """What slowed the board down between the two, one sentence each."""


@dataclass(frozen=True)
class Sampled:
    """A reading and when it was taken, seconds of time.perf_counter."""

    at_s: float
    reading: Reading


def find_meter() -> Meter | None:
    """The meter of this computer, from the first installed reader that knows it."""
    for point in entry_points(group=READERS):
        meter: Meter | None = point.load()()
        if meter is not None:
            return meter
    return None


class Recorder:
    """Reads a meter in the background between `with` and its end; `samples` is what it saw, in order.

    error: why reading ended early, None when it did not.
    """

    def __init__(
        self, meter: Meter, interval_s: float = INTERVAL_S, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self.samples: list[Sampled] = []
        self.error: str | None = None
        self._meter, self._interval_s, self._now = meter, interval_s, now
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._record, name="telemetry", daemon=True)

    def _record(self) -> None:
        while True:
            try:
                # The sensors answer for the middle of the time that reading them takes.
                before = self._now()
                reading = self._meter.read()
                self.samples.append(Sampled((before + self._now()) / 2, reading))
            except Exception as error:  # noqa: BLE001  a broken sensor must not end the measurement
                self.error = f"reading the sensors failed ({error})"
                return
            if self._stop.wait(self._interval_s):
                return

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


def joules(samples: list[Sampled], spans: list[tuple[float, float]]) -> float | None:
    """Integral of the board's power over the spans (from, to; seconds), linear between readings.

    None where power is not known: no readings, or a span that reaches beyond them by more than a reading's distance.
    """
    known = [(s.at_s, s.reading.watts) for s in samples if s.reading.watts is not None]
    if len(known) < 2 or not spans:
        return None
    at, watts = np.array([k[0] for k in known]), np.array([k[1] for k in known], np.float64)
    slack = float(np.diff(at).max())
    if min(s[0] for s in spans) < at[0] - slack or max(s[1] for s in spans) > at[-1] + slack:
        return None
    return sum(_integral(at, watts, start, end) for start, end in spans)


def _integral(
    at: np.ndarray[tuple[int], np.dtype[np.float64]],
    watts: np.ndarray[tuple[int], np.dtype[np.float64]],
    start: float,
    end: float,
) -> float:
    inside = at[(at > start) & (at < end)]
    moments = np.concatenate([[start], inside, [end]])
    power = np.interp(moments, at, watts)
    return float(((power[1:] + power[:-1]) / 2 * np.diff(moments)).sum())
