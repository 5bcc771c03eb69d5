"""Thermal alerts, over-current counters and falling clocks."""

from __future__ import annotations

from pathlib import Path

from orinspect_jetson.host import Host
from orinspect_jetson.telemetry import parse_line
from orinspect_jetson.throttling import Throttling, clock_drops, read_throttling, throttled_between


def write(root: Path, path: str, content: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content + "\n")


def test_reads_alerts_and_counters(tmp_path: Path) -> None:
    for number, (kind, state) in enumerate((("gpu-throttle-alert", 1), ("cpu-throttle-alert", 0), ("pwm-fan", 3))):
        write(tmp_path, f"sys/class/thermal/cooling_device{number}/type", kind)
        write(tmp_path, f"sys/class/thermal/cooling_device{number}/cur_state", str(state))
    for name, count in (("oc1", 0), ("oc3", 127)):
        write(tmp_path, f"sys/devices/platform/soctherm-oc-event/hwmon/hwmon3/{name}_event_cnt", str(count))
    state = read_throttling(Host(tmp_path))
    assert state == Throttling(("gpu",), {"oc1": 0, "oc3": 127})


def test_only_the_increase_of_a_counter_counts() -> None:
    quiet = Throttling((), {"oc1": 0, "oc3": 127})
    assert throttled_between(quiet, quiet) == []
    assert throttled_between(quiet, Throttling((), {"oc1": 0, "oc3": 130})) == ["3 instantaneous over-current event(s)"]
    assert throttled_between(quiet, Throttling(("cpu",), quiet.events)) == ["thermal throttling of cpu"]
    assert throttled_between(Throttling((), {}), quiet) == []


def test_clock_drops_are_those_under_load() -> None:
    lines = (
        "GR3D_FREQ 99%@[911]",
        "GR3D_FREQ 99%@[624]",
        "GR3D_FREQ 10%@[306]",
        "GR3D_FREQ 99%",
        "GR3D_FREQ @[306,306,306]",
        "GR3D_FREQ 99%@0",
        "GR3D_FREQ 98%@[510,918]",
    )
    samples = [parse_line(line) for line in lines]
    assert clock_drops(samples, 918) == [samples[1]]
    assert clock_drops([], 918) == []
