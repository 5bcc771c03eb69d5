"""Power, temperature and GPU clocks straight from sysfs: the second source beside tegrastats, without a process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orinspect_jetson.host import Host
from orinspect_jetson.modules import Module
from orinspect_jetson.telemetry import LEAST_CELSIUS, MOST_CELSIUS, Rail, Sample, parse_line

CHANNELS = (1, 2, 3)
UNCONNECTED = ("", "NC")
# Where one rail carries the whole board, for a module that is not known.
WHOLE_BOARD = ("VDD_IN", "POM_5V_IN", "VIN")
GPU_NODES = "/sys/class/devfreq/*"
GPU_SUFFIXES = (".gpu", ".ga10b", ".gv11b", "gpu-gpc-0")


@dataclass(frozen=True)
class GpuClock:
    """Clocks of the GPU, MHz. is_locked: the least, the greatest and the current one are equal (jetson_clocks)."""

    now_mhz: float
    least_mhz: float
    most_mhz: float

    @property
    def is_locked(self) -> bool:
        """Do the clocks stay where they are?"""
        return self.least_mhz == self.most_mhz == self.now_mhz


def board_power_mw(rails: Mapping[str, Rail], module: Module | None) -> int | None:
    """Input power of the board, mW, by the rule of its module; None when a rail of the rule is missing.

    Some rails lie inside others (VDDQ_VDD2_1V8AO inside VIN_SYS_5V0 on AGX Orin): summing all would count them twice.
    """
    names = module.board_total if module is not None else tuple(n for n in WHOLE_BOARD if n in rails)[:1]
    if not names or any(name not in rails for name in names):
        return None
    return sum(rails[name].now_mw for name in names)


def read_rails(host: Host) -> dict[str, Rail]:
    """All rails of the INA3221 monitors by their label. Power is voltage x current, mV x mA / 1000 = mW."""
    rails: dict[str, Rail] = {}
    for file in host.glob("/sys/bus/i2c/devices/*/name"):
        if host.text(file) != "ina3221":
            continue
        for folder in host.glob(f"{file.removesuffix('/name')}/hwmon/hwmon*"):
            for channel in CHANNELS:
                label = host.text(f"{folder}/in{channel}_label") or ""
                millivolts = host.number(f"{folder}/in{channel}_input")
                milliamperes = host.number(f"{folder}/curr{channel}_input")
                if label not in UNCONNECTED and millivolts is not None and milliamperes is not None:
                    rails[label] = Rail(round(millivolts * milliamperes / 1000))
    return rails or _rails_of_jetpack_4(host)


def read_temperatures(host: Host) -> dict[str, float]:
    """Temperatures by thermal zone ("gpu-thermal"), C, without zones of blocks that are off."""
    found = {}
    for folder in host.glob("/sys/class/thermal/thermal_zone*") or host.glob(
        "/sys/devices/virtual/thermal/thermal_zone*"
    ):
        name, millidegrees = host.text(f"{folder}/type"), host.number(f"{folder}/temp")
        if name and millidegrees is not None and LEAST_CELSIUS < millidegrees / 1000 < MOST_CELSIUS:
            found[name] = millidegrees / 1000
    return found


def read_gpu_clock(host: Host) -> GpuClock | None:
    """The GPU's devfreq clocks, or None."""
    for folder in host.glob(GPU_NODES):
        if not folder.endswith(GPU_SUFFIXES):
            continue
        hz = [host.number(f"{folder}/{name}_freq") for name in ("cur", "min", "max")]
        known = [value / 1e6 for value in hz if value is not None]
        if len(known) == len(hz):
            return GpuClock(*known)
    return None


def read_sample(host: Host, interval_ms: int = 500) -> Sample | None:
    """One sample of tegrastats, or None when the board has none or it stays silent."""
    # tegrastats never ends by itself: it is stopped after a line had time to appear.
    answer = host.run("tegrastats", "--interval", str(interval_ms), timeout_s=3 * interval_ms / 1000)
    lines = [] if answer is None else [line for line in answer.out.splitlines() if line.strip()]
    return parse_line(lines[0]) if lines else None


def _rails_of_jetpack_4(host: Host) -> dict[str, Rail]:
    rails = {}
    for folder in host.glob("/sys/bus/i2c/drivers/ina3221x/*/iio:device*"):
        for channel in (0, 1, 2):
            label = host.text(f"{folder}/rail_name_{channel}") or ""
            milliwatts = host.number(f"{folder}/in_power{channel}_input")
            if label not in UNCONNECTED and milliwatts is not None:
                rails[label] = Rail(milliwatts)
    return rails
