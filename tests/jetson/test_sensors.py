"""Rails, temperatures and clocks from sysfs files."""

from __future__ import annotations

from pathlib import Path

import pytest

from orinspect_jetson.host import Host
from orinspect_jetson.modules import modules
from orinspect_jetson.sensors import board_power_mw, read_gpu_clock, read_rails, read_sample, read_temperatures
from orinspect_jetson.telemetry import Rail

I2C = "sys/bus/i2c/devices"


def write(root: Path, files: dict[str, str]) -> None:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content + "\n")


def channel(folder: str, number: int, label: str, millivolts: int, milliamperes: int) -> dict[str, str]:
    return {
        f"{folder}/in{number}_label": label,
        f"{folder}/in{number}_input": str(millivolts),
        f"{folder}/curr{number}_input": str(milliamperes),
    }


def test_rails_of_an_agx_orin(tmp_path: Path) -> None:
    """Voltages and currents as published for an AGX Orin; the summed in7 and the unconnected channels are left out."""
    first, second = f"{I2C}/1-0040/hwmon/hwmon3", f"{I2C}/1-0041/hwmon/hwmon4"
    write(tmp_path, {f"{I2C}/1-0040/name": "ina3221", f"{I2C}/1-0041/name": "ina3221", f"{I2C}/0-0050/name": "24c02"})
    write(tmp_path, channel(first, 1, "VDD_GPU_SOC", 843, 6170) | channel(first, 2, "VDD_CPU_CV", 780, 3437))
    write(tmp_path, channel(first, 3, "VIN_SYS_5V0", 4968, 953) | channel(first, 7, "sum of shunt voltages", 9, 9))
    write(tmp_path, channel(second, 1, "NC", 0, 0) | channel(second, 2, "VDDQ_VDD2_1V8AO", 1800, 341))
    rails = read_rails(Host(tmp_path))
    assert rails == {
        "VDD_GPU_SOC": Rail(5201),
        "VDD_CPU_CV": Rail(2681),
        "VIN_SYS_5V0": Rail(4735),
        "VDDQ_VDD2_1V8AO": Rail(614),
    }
    assert board_power_mw(rails, modules()["p3701-0005"]) == 5201 + 2681 + 4735


def test_rails_of_jetpack_4(tmp_path: Path) -> None:
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    write(tmp_path, {f"{folder}/rail_name_0": "POM_5V_IN", f"{folder}/in_power0_input": "3227"})
    rails = read_rails(Host(tmp_path))
    assert rails == {"POM_5V_IN": Rail(3227)}
    assert board_power_mw(rails, modules()["p3448-0000"]) == 3227


@pytest.mark.parametrize(
    ("rails", "part", "total"),
    [
        ({"VDD_IN": 5000, "VDD_SOC": 1400}, "p3767-0000", 5000),
        ({"VDD_IN": 5000, "VDD_SOC": 1400}, None, 5000),
        ({"VDD_GPU_SOC": 1, "VDD_CPU_CV": 2, "VIN_SYS_5V0": 4, "VDDQ_VDD2_1V8AO": 8}, "p3701-0004", 7),
        ({"VDD_GPU_SOC": 1, "VDD_CPU_CV": 2}, "p3701-0004", None),
        ({"VDD_GPU_SOC": 1, "VDD_CPU_CV": 2, "VIN_SYS_5V0": 4}, None, None),
        ({"VDD_GPU": 1, "VIN_SYS_5V0": 4}, "p3834-0008", None),
        ({"GPU": 1, "CPU": 2, "SOC": 4, "CV": 8, "VDDRQ": 16, "SYS5V": 32}, "p2888-0004", 63),
        ({}, None, None),
    ],
)
def test_board_power(rails: dict[str, int], part: str | None, total: int | None) -> None:
    module = None if part is None else modules()[part]
    assert board_power_mw({name: Rail(mw) for name, mw in rails.items()}, module) == total


def test_temperatures(tmp_path: Path) -> None:
    zones = (("cpu-thermal", "52968"), ("gpu-thermal", "-256000"), ("tj-thermal", "53000"), ("bad", "x"))
    for number, (kind, value) in enumerate(zones):
        folder = f"sys/class/thermal/thermal_zone{number}"
        write(tmp_path, {f"{folder}/type": kind, f"{folder}/temp": value})
    assert read_temperatures(Host(tmp_path)) == {"cpu-thermal": 52.968, "tj-thermal": 53.0}


@pytest.mark.parametrize("node", ["17000000.gpu", "17000000.ga10b", "gpu-gpc-0", "17000000.gv11b", "57000000.gpu"])
def test_gpu_clock(tmp_path: Path, node: str) -> None:
    folder = f"sys/class/devfreq/{node}"
    write(tmp_path, {f"sys/class/devfreq/aaa.vic/{name}_freq": "1" for name in ("cur", "min", "max")})
    write(
        tmp_path,
        {f"{folder}/cur_freq": "306000000", f"{folder}/min_freq": "306000000", f"{folder}/max_freq": "918000000"},
    )
    clock = read_gpu_clock(Host(tmp_path))
    assert clock is not None
    assert (clock.now_mhz, clock.most_mhz, clock.is_locked) == (306, 918, False)
    write(tmp_path, {f"{folder}/max_freq": "306000000"})
    clock = read_gpu_clock(Host(tmp_path))
    assert clock is not None
    assert clock.is_locked


def test_no_sensors(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert (read_rails(host), read_temperatures(host), read_gpu_clock(host), read_sample(host)) == ({}, {}, None, None)


def test_a_sample_of_a_tool_that_never_ends(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin/tegrastats"
    tool.write_text(
        "#!/bin/sh\nwhile :; do echo 'RAM 1/2MB CPU [1%@729] GR3D_FREQ 5% VDD_IN 40mW/41mW'; sleep 0.05; done\n"
    )
    tool.chmod(0o755)
    sample = read_sample(Host(tmp_path), interval_ms=100)
    assert sample is not None
    assert sample.rails == {"VDD_IN": Rail(40, 41)}
