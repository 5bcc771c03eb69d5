"""The board's sensors while something is measured: the reader behind the entry point `orinspect.telemetry`.

Everything comes from sysfs, not from tegrastats: a process beside the measurement would be measured with it. Not yet
run on hardware.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.telemetry import Reading, Standing
from orinspect_jetson.board import read_board
from orinspect_jetson.host import Host
from orinspect_jetson.identity import identify
from orinspect_jetson.modules import Module
from orinspect_jetson.nvpmodel import current_mode
from orinspect_jetson.power import Power, state_folder
from orinspect_jetson.sensors import board_power_mw, read_gpu_clock, read_rails, read_temperatures
from orinspect_jetson.software import read_software
from orinspect_jetson.throttling import Throttling, read_throttling, throttled_between

CPU_CLOCKS = "/sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq"


class BoardMeter:
    """Power, temperatures, clocks and throttling of one board. module: by whose rule rails add up, None if unknown."""

    def __init__(self, host: Host, module: Module | None) -> None:
        self._host = host
        self._module = module

    def read(self) -> Reading:
        """The sensors now; what the board does not tell stays out."""
        milliwatts = board_power_mw(read_rails(self._host), self._module)
        clock = read_gpu_clock(self._host)
        khz = [self._host.number(file) for file in self._host.glob(CPU_CLOCKS)]
        return Reading(
            watts=None if milliwatts is None else milliwatts / 1000,
            temperatures_c=read_temperatures(self._host),
            gpu_mhz=None if clock is None else clock.now_mhz,
            cpu_mhz=tuple(value / 1000 for value in khz if value is not None),
            alerts=read_throttling(self._host).alerts,
        )

    def standing(self) -> Standing:
        """Power mode and throttling counters now."""
        mode, throttling = current_mode(self._host), read_throttling(self._host)
        return Standing(None if mode is None else _mode_text(*mode), throttling.alerts, throttling.events)

    def power_mode(self, name: str) -> AbstractContextManager[None]:
        """A block run in the power mode of that name; the former one comes back, after a kill at the next start.

        Raises InputError for a mode that this board has not, CheckFailed when it cannot be switched to here.
        """
        table = read_board(self._host).power_table
        if table is None:
            raise InputError("no power modes are known for this board")
        control = Power(self._host, table, state_folder(self._host))
        return control.held(control.mode(name))

    def throttled_between(self, before: Standing, after: Standing) -> list[str]:
        """What slowed the board down between the two, one sentence each."""
        return throttled_between(Throttling(before.alerts, before.events), Throttling(after.alerts, after.events))


def read_meter(host: Host | None = None) -> BoardMeter | None:
    """The meter of the board behind the host (this computer's root by default); None when it is no Jetson."""
    found = host or Host()
    identity = identify(found, read_software(found))
    return BoardMeter(found, identity.module) if identity.is_jetson else None


def _mode_text(number: int, name: str | None) -> str:
    return name or f"mode {number}"
