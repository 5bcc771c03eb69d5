"""What to measure: the plan of one run, checked before anything is opened."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from orinspect_edge_runtime.errors import InputError

SINGLE_STREAM, MULTI_STREAM, OFFLINE, SERVER = "single-stream", "multi-stream", "offline", "server"
SCENARIOS = (SINGLE_STREAM, MULTI_STREAM, OFFLINE, SERVER)
ROUND_RUNS = 10
MOST_FRAMES = 1024


@dataclass(frozen=True)
class BenchOptions:
    """A run. precisions: () for all of the bundle.

    scenario: single-stream (a frame at a time), multi-stream (`streams` frames at once, latency of all together),
    offline (batches of `batch` frames, throughput) or server (frames arrive by chance, `rate` a second on average, and
    wait in a queue; `bound_ms` is what a frame may take). runs: timed calls a precision. images: folder of image files
    for the stages. cold_starts: fresh processes a precision. seed: of the arrivals.
    """

    precisions: tuple[str, ...] = ()
    scenario: str = SINGLE_STREAM
    head: str = "patchcore"
    recipe: str | None = None
    runs: int = 100
    threads: int = 0
    backend: str = "auto"
    streams: int = 4
    batch: int = 8
    rate: float | None = None
    bound_ms: float | None = None
    find_rate: bool = False
    seed: int = 0
    images: Path | None = None
    cold_starts: int = 1

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise InputError(f"scenario {self.scenario!r} is not known: use one of {', '.join(SCENARIOS)}")
        if self.runs < ROUND_RUNS:
            raise InputError(f"--runs {self.runs}: at least {ROUND_RUNS} are needed for a percentile")
        for name, frames in (("--streams", self.streams), ("--batch", self.batch)):
            if not 1 <= frames <= MOST_FRAMES:
                raise InputError(f"{name} {frames}: use 1 to {MOST_FRAMES} frames")
        for name, value in (("--rate", self.rate), ("--bound-ms", self.bound_ms)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} {value}: a number above 0")
        if self.scenario == SERVER:
            self._check_server()
        elif self.rate is not None or self.bound_ms is not None or self.find_rate:
            raise InputError("--rate, --bound-ms and --find-rate belong to --scenario server")

    def _check_server(self) -> None:
        if self.find_rate and self.bound_ms is None:
            raise InputError("--find-rate looks for the largest rate within a bound: pass --bound-ms")
        if self.rate is None and not self.find_rate:
            raise InputError("--scenario server needs --rate (frames a second that arrive), or --find-rate")

    @property
    def frames(self) -> int:
        """Frames a call."""
        return {MULTI_STREAM: self.streams, OFFLINE: self.batch}.get(self.scenario, 1)
