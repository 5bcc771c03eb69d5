"""The board's sensors behind `orinspect.telemetry`, on replayed boards. Nothing here ran on one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orinspect_edge_runtime import telemetry
from orinspect_edge_runtime.bench import measure
from orinspect_edge_runtime.bench.measure import run_bench
from orinspect_edge_runtime.bench.plan import BenchOptions
from orinspect_edge_runtime.bench.sweep import run_sweep
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import InputError
from orinspect_jetson.host import Host
from orinspect_jetson.meter import BoardMeter, read_meter

I2C = "sys/bus/i2c/devices/1-0040"
ALERT = "sys/class/thermal/cooling_device0"
COUNTER = "sys/devices/platform/soctherm-oc-event/hwmon/hwmon3/oc3_event_cnt"


def write(board: Path, path: str, content: object) -> None:
    file = board / "root" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{content}\n")


@pytest.fixture
def board(compose: Callable[..., Path]) -> Path:
    """A replayed Orin Nano with the sensor files that the recordings lack."""
    folder = compose("orin-nano-8gb-super", "36.4.3")
    write(folder, f"{I2C}/name", "ina3221")
    for name, value in (("in1_label", "VDD_IN"), ("in1_input", 5000), ("curr1_input", 1600)):
        write(folder, f"{I2C}/hwmon/hwmon1/{name}", value)
    write(folder, "sys/class/thermal/thermal_zone0/type", "gpu-thermal")
    write(folder, "sys/class/thermal/thermal_zone0/temp", 51500)
    write(folder, "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", 1728000)
    write(folder, f"{ALERT}/type", "gpu-throttle-alert")
    write(folder, f"{ALERT}/cur_state", 0)
    write(folder, COUNTER, 7)
    return folder


def meter_of(board: Path) -> BoardMeter:
    meter = read_meter(Host(board))
    assert meter is not None
    return meter


def test_a_sweep_over_power_modes_leaves_the_board_as_it_was(board: Path, real_bundle: Path) -> None:
    meter = meter_of(board)
    before = meter.standing().power_mode
    assert before == "MAXN_SUPER"
    sweep = run_sweep(Bundle.open(real_bundle), BenchOptions(runs=10), (1, 2), ("15W", "25W"), meter=meter)
    found = [(r["power_mode"], r["batch"], r["telemetry"]["power_mode_before"]) for r in sweep["results"]]
    assert found == [("15W", 1, "15W"), ("15W", 2, "15W"), ("25W", 1, "25W"), ("25W", 2, "25W")]
    assert meter.standing().power_mode == before
    with pytest.raises(InputError, match="power mode '7W' is not known to this board: it has"):
        run_sweep(Bundle.open(real_bundle), BenchOptions(runs=10), (1,), ("7W",), meter=meter)
    assert meter.standing().power_mode == before


def test_one_reading(board: Path) -> None:
    reading = meter_of(board).read()
    assert reading.watts == 8.0
    assert reading.temperatures_c == {"gpu-thermal": 51.5}
    assert (reading.gpu_mhz, reading.cpu_mhz, reading.alerts) == (306.0, (1728.0,), ())


def test_what_a_board_does_not_tell_is_not_zero(compose: Callable[..., Path]) -> None:
    reading = meter_of(compose("orin-nx-16gb", "36.4.3")).read()
    assert reading.watts is None
    assert reading.cpu_mhz == ()


def test_throttling_between_two_moments(board: Path) -> None:
    meter = meter_of(board)
    before = meter.standing()
    assert before.power_mode
    assert meter.throttled_between(before, meter.standing()) == []
    write(board, COUNTER, 9)
    write(board, f"{ALERT}/cur_state", 1)
    after = meter.standing()
    told = meter.throttled_between(before, after)
    assert told == ["thermal throttling of gpu", "2 instantaneous over-current event(s)"]
    assert meter.read().alerts == ("gpu",)


def test_every_replayed_orin_has_a_meter(compose: Callable[..., Path], board_table: dict[str, Any]) -> None:
    for row in board_table["boards"]:
        if row["part"].startswith(("p3701", "p3767")):
            meter = read_meter(Host(compose(row["id"], row["releases"][-1])))
            assert meter is not None
            assert meter.standing().power_mode is not None
            assert meter.read().gpu_mhz == 306.0


def test_a_computer_that_is_no_jetson_has_none(tmp_path: Path) -> None:
    assert read_meter(Host(tmp_path)) is None


def test_bench_on_a_replayed_board(board: Path, real_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seam as a whole: the reader is found as an entry point, its readings reach the result."""

    class Point:
        def load(self) -> Callable[[], BoardMeter]:
            return lambda: meter_of(board)

    monkeypatch.setattr(telemetry, "entry_points", lambda group: [Point()] if group == telemetry.READERS else [])
    monkeypatch.setattr(measure, "IDLE_S", 0.05)
    result = run_bench(Bundle.open(real_bundle), BenchOptions(runs=50, cold_starts=0, threads=1))
    seen = result["telemetry"]
    assert seen["measured"]
    assert seen["idle_watts"] == 8.0
    assert seen["power_mode_before"] == seen["power_mode_after"] != ""
    assert {reading["watts"] for reading in seen["readings"]} == {8.0}
    assert seen["throttled"] == []


def test_the_entry_point_names_the_reader() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    group = project.partition(f'[project.entry-points."{telemetry.READERS}"]')[2]
    assert group.split("\n")[1] == 'jetson = "orinspect_jetson.meter:read_meter"'
