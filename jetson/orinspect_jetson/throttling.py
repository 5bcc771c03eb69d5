"""Did the board slow itself down? Thermal alerts, over-current events, and clocks that fell under load."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orinspect_jetson.host import Host
from orinspect_jetson.telemetry import Sample

OVER_CURRENT_COUNTERS = "/sys/devices/platform/soctherm-oc-event/hwmon/hwmon*/oc?_event_cnt"
OVER_CURRENT_NAMES = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}
# A GPU this busy has no reason to lower its clock by itself.
BUSY_PERCENT = 95
# DVFS steps differ from the requested cap by up to 2.5 % (918 MHz shows as 911 to 918).
CLOCK_TOLERANCE = 0.05


@dataclass(frozen=True)
class Throttling:
    """alerts: thermal throttle alerts raised now. events: over-current counters since boot, by name ("oc3")."""

    alerts: tuple[str, ...]
    events: dict[str, int]


def read_throttling(host: Host) -> Throttling:
    """The state now; take it before and after a measurement and compare."""
    alerts = []
    for folder in host.glob("/sys/class/thermal/cooling_device*"):
        kind = host.text(f"{folder}/type") or ""
        if kind.endswith("-throttle-alert") and (host.number(f"{folder}/cur_state") or 0) > 0:
            alerts.append(kind.removesuffix("-throttle-alert"))
    events: dict[str, int] = {}
    for file in host.glob(OVER_CURRENT_COUNTERS):
        count = host.number(file)
        if count is not None:
            events[file.rpartition("/")[2].removesuffix("_event_cnt")] = count
    return Throttling(tuple(sorted(alerts)), events)


def throttled_between(before: Throttling, after: Throttling) -> list[str]:
    """What slowed the board down between two readings, one sentence each; empty when nothing did.

    The counters run since boot, so only their increase says anything.
    """
    found = [f"thermal throttling of {name}" for name in sorted({*before.alerts, *after.alerts})]
    for name, count in sorted(after.events.items()):
        increase = count - before.events.get(name, count)
        if increase > 0:
            found.append(f"{increase} {OVER_CURRENT_NAMES.get(name, name)} event(s)")
    return found


def clock_drops(samples: Iterable[Sample], cap_mhz: float) -> list[Sample]:
    """Samples in which the GPU was busy, yet ran below its cap (MHz). Samples without load or clock are left out."""
    return [
        sample
        for sample in samples
        if sample.gpu is not None
        and sample.gpu.percent is not None
        and sample.gpu.percent >= BUSY_PERCENT
        and sample.gpu.mhz
        and 0 < max(sample.gpu.mhz) < cap_mhz * (1 - CLOCK_TOLERANCE)
    ]
