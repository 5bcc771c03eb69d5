"""Where a network runs: a module in a power mode, as the four numbers that bound its speed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from orinspect_edge_runtime.errors import InputError
from orinspect_jetson.modules import Module, modules
from orinspect_jetson.nvpmodel import PowerMode, PowerTable, packaged_tables

# Names on the command line, with the part number of the module. A developer kit's module is the same silicon.
DEVICES = {
    "orin-nano-4": "p3767-0004",
    "orin-nano-8": "p3767-0003",
    "orin-nx-8": "p3767-0001",
    "orin-nx-16": "p3767-0000",
    "agx-orin-32": "p3701-0004",
    "agx-orin-64": "p3701-0005",
}
BUS_BITS = {"orin-nano-4": 64, "agx-orin-32": 256, "agx-orin-64": 256}
DEFAULT_BUS_BITS = 128
# Highest CPU clock: datasheet figures. A Super configuration of the Orin Nano raises it.
CPU_MHZ = {"orin-nano-4": 1510.0, "orin-nano-8": 1510.0, "agx-orin-32": 2201.6, "agx-orin-64": 2201.6}
SUPER_CPU_MHZ = {"orin-nano-4": 1728.0, "orin-nano-8": 1728.0}
DEFAULT_CPU_MHZ = 1984.0


@dataclass(frozen=True)
class OperatingPoint:
    """A device ("orin-nx-16") in a mode ("25W"). sm: streaming multiprocessors that are on.

    bandwidth_gb_s: of the memory, 1e9 byte/s. is_super: the mode belongs to the Super configuration.
    """

    device: str
    mode: str
    sm: int
    gpu_mhz: float
    bandwidth_gb_s: float
    memory_gb: int
    cpus: int
    cpu_mhz: float
    is_super: bool

    @property
    def fp16_tflops(self) -> float:
        """Dense FP16 peak of the tensor cores: 2048 operations a clock and multiprocessor (SM 8.7)."""
        return self.sm * self.gpu_mhz * 2048e-6

    @property
    def nominal_w(self) -> float | None:
        """The wattage in the mode's name, None for MAXN. A name, not a measurement and not a limit."""
        digits = self.mode.upper().removeprefix("MODE_").partition("W")[0]
        return float(digits) if digits.isdigit() else None

    @property
    def label(self) -> str:
        """For people: "orin-nx-16 25W"; a mode of a Super configuration says so."""
        return f"{self.device} {self.mode}" + (" (Super)" if self.is_super and "SUPER" not in self.mode else "")


def operating_point(device: str, mode: str | None = None) -> OperatingPoint:
    """A device in a mode by name; without a mode its fastest.

    A mode that the plain and the Super configuration both have is the plain one; `DEVICE-super` asks for the other.
    Raises InputError naming what there is.
    """
    wanted = device.lower().strip()
    points = [p for p in all_points() if p.device == wanted.removesuffix("-super")]
    if wanted.endswith("-super"):
        points = [p for p in points if p.is_super]
    if not points:
        near = difflib.get_close_matches(wanted, DEVICES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"device {device!r} is not known{hint} (known: {', '.join(DEVICES)}; -super for Super modes)")
    if mode is None:
        return max(points, key=lambda p: (p.fp16_tflops, p.bandwidth_gb_s))
    plain = mode.strip().upper().replace(" ", "_").removeprefix("MODE_")
    found = [p for p in points if p.mode.upper().removeprefix("MODE_") == plain]
    if not found:
        have = ", ".join(dict.fromkeys(p.mode for p in points))
        raise InputError(f"{device} has no mode {mode!r} (it has: {have})")
    return found[0]


def all_points() -> Iterator[OperatingPoint]:
    """Every device in every mode of NVIDIA's tables, plain configurations first."""
    for device, part in DEVICES.items():
        module = modules()[part]
        names = [module.nvpmodel] + ([] if module.super is None else [module.super.nvpmodel])
        for name in names:
            table = packaged_tables().get(name or "")
            if table is not None:
                yield from _points(device, module, table)


def _points(device: str, module: Module, table: PowerTable) -> Iterator[OperatingPoint]:
    is_super = module.super is not None and table.configuration == module.super.nvpmodel
    top = module.super if is_super and module.super is not None else module
    for mode in table.modes:
        if top.gpu_max_mhz is None:
            continue
        clock = min(top.gpu_max_mhz, mode.gpu_max_mhz or top.gpu_max_mhz)
        bandwidth = min(top.bandwidth_gb_s, _bandwidth(device, mode) or top.bandwidth_gb_s)
        own_cpu = (SUPER_CPU_MHZ if is_super else CPU_MHZ).get(device, DEFAULT_CPU_MHZ)
        cpu = min(own_cpu, mode.cpu_max_mhz or own_cpu)
        sm, cpus, memory = mode.sm or module.sm, mode.cpus or module.cpus, max(module.memory_gb)
        yield OperatingPoint(device, mode.name, sm, clock, round(bandwidth, 1), memory, cpus, cpu, is_super)


def _bandwidth(device: str, mode: PowerMode) -> float | None:
    """GB/s under the mode's cap of the memory clock: two transfers a clock over the bus."""
    bits = BUS_BITS.get(device, DEFAULT_BUS_BITS)
    return None if mode.emc_max_mhz is None else mode.emc_max_mhz * 2 * bits / 8 / 1e3
