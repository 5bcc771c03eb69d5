"""Energy, temperatures and clocks of a run, out of what a meter read beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from orinspect_edge_runtime.telemetry import Meter, Recorder, Sampled, Standing, joules

NOT_MEASURED = (
    "energy, clocks, temperatures and throttling are not measured here: no telemetry reader knows this computer"
)
# Fewer readings inside the rounds of a precision than this cannot tell its power from that of the others.
LEAST_READINGS = 10
# DVFS steps differ from the requested clock by up to 2.5 %.
CLOCK_TOLERANCE = 0.05
Span = tuple[float, float]


def energy(samples: Sequence[Sampled], spans: Sequence[Span], images: int) -> dict[str, Any]:
    """Joules of the timed rounds (whole board, nothing subtracted) and of an image; None with the reason beside it."""
    inside = [s for s in samples if s.reading.watts is not None and any(a <= s.at_s <= b for a, b in spans)]
    total = joules(list(samples), list(spans)) if len(inside) >= LEAST_READINGS else None
    if total is None:
        why = f"{len(inside)} power readings fell into the timed rounds, {LEAST_READINGS} are needed: pass more --runs"
        return {"joules": None, "joules_per_image": None, "watts": None, "why_not": why}
    seconds = sum(b - a for a, b in spans)
    return {"joules": total, "joules_per_image": total / images, "watts": total / seconds, "why_not": None}


def telemetry_result(
    meter: Meter,
    recorder: Recorder,
    idle: Recorder,
    standings: tuple[Standing, Standing],
    spans: Mapping[str, Sequence[Span]],
    images: Mapping[str, int],
    began: float,
) -> dict[str, Any]:
    """What docs/bench.md calls `telemetry`. Times count from `began`, seconds of time.perf_counter."""
    before, after = standings
    idle_watts = [s.reading.watts for s in idle.samples if s.reading.watts is not None]
    return {
        "measured": True,
        "note": recorder.error,
        "idle_watts": float(np.median(idle_watts)) if idle_watts else None,
        "energy": {p: energy(recorder.samples, spans[p], images[p]) for p in spans},
        "power_mode_before": before.power_mode,
        "power_mode_after": after.power_mode,
        "throttled": meter.throttled_between(before, after) + _alerts(recorder.samples),
        "readings": [{"at_s": round(s.at_s - began, 3), **asdict(s.reading)} for s in recorder.samples],
    }


def clocks_moved(readings: Sequence[Mapping[str, Any]], spans: Sequence[Span]) -> list[str] | None:
    """Sentences on clocks that moved within the timed rounds; None when no clock was read in them."""
    timed = [r for r in readings if any(a <= r["at_s"] <= b for a, b in spans)]
    gpu = [r["gpu_mhz"] for r in timed if r["gpu_mhz"] is not None]
    # Idle cores slow down by themselves; the one that works is the fastest.
    cpu = [max(r["cpu_mhz"]) for r in timed if r["cpu_mhz"]]
    if not gpu and not cpu:
        return None
    return [
        f"the {name}'s clock moved between {min(mhz):.0f} and {max(mhz):.0f} MHz: lock it (sudo jetson_clocks)"
        for name, mhz in (("GPU", gpu), ("CPU", cpu))
        if mhz and min(mhz) < max(mhz) * (1 - CLOCK_TOLERANCE)
    ]


def _alerts(samples: Sequence[Sampled]) -> list[str]:
    names = sorted({name for s in samples for name in s.reading.alerts})
    return [f"thermal throttling of {name} while it was measured" for name in names]
