"""The signals that tell which module this is. Each is weak or can lie; board.py weighs them against each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from orinspect_jetson.host import Host
from orinspect_jetson.modules import Module, chips, modules, part_of
from orinspect_jetson.nvpmodel import configuration_of, packaged_tables

MODEL_FILES = ("/sys/firmware/devicetree/base/model", "/proc/device-tree/model")
COMPATIBLE_FILES = ("/sys/firmware/devicetree/base/compatible", "/proc/device-tree/compatible")
LABEL_FILES = ("/proc/device-tree/chosen/nvidia,sku", "/sys/firmware/devicetree/base/chosen/nvidia,sku")
BOARD_IDS_FILES = ("/proc/device-tree/chosen/ids", "/sys/firmware/devicetree/base/chosen/ids")
BOOT_CONTROL = "/etc/nv_boot_control.conf"
MASK_FILES = (
    "/sys/devices/platform/gpu.0/tpc_pg_mask",
    "/sys/devices/platform/17000000.gpu/tpc_pg_mask",
    "/sys/devices/platform/bus@0/17000000.gpu/tpc_pg_mask",
    "/sys/devices/17000000.ga10b/tpc_pg_mask",
    "/sys/devices/platform/17000000.ga10b/tpc_pg_mask",
)
EEPROM_GLOB = "/sys/bus/i2c/devices/[0127]-0050/eeprom"
# Bytes of the module's EEPROM that hold its label, as jetson_stats reads them.
EEPROM_LABEL = slice(20, 49)
# Firmware, carve-outs and inline ECC take their part before Linux counts: MemTotal is 0.87 to 0.96 of the nominal size.
LEAST_MEMORY_SHARE = 0.80
MEMORY_SIZES_GB = (2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Signal:
    """One observation. says: part numbers of the modules it fits (none: it names a part that is not in the table).

    weight: how hard it is to be wrong. Physical: memory 8, label in the EEPROM 7, chip 5, CPUs 4, TPC mask 2. Written
    when flashing: TNSPEC 4, device tree 3, nvpmodel configuration 2. Free text: model 1. Everything written when
    flashing can be wrong together (10) without outvoting memory and CPUs (12); memory alone can be wrong (a carve-out)
    without outvoting label and CPUs.
    """

    name: str
    value: str
    says: frozenset[str]
    weight: int


def read_signals(host: Host) -> list[Signal]:
    """All signals that this machine gives; a signal that fits no known module is left out, an unknown part is kept."""
    return [signal for read in READERS for signal in read(host)]


def read_model(host: Host) -> str:
    """The device tree's model string, or an empty one."""
    return next((text for file in MODEL_FILES if (text := host.text(file))), "")


def read_compatible(host: Host) -> list[str]:
    """The device tree's compatible strings, most specific first."""
    return next((found for file in COMPATIBLE_FILES if (found := host.strings(file))), [])


def read_mask(host: Host) -> int | None:
    """The GPU's TPC power-gating mask in force, or None."""
    return next((mask for file in MASK_FILES if (mask := host.number(file)) is not None), None)


def memory_mib(host: Host) -> int | None:
    """Memory that Linux manages, MiB."""
    found = re.search(r"^MemTotal:\s+(\d{1,15}) kB", host.text("/proc/meminfo") or "", re.MULTILINE)
    return None if found is None else int(found[1]) // 1024


def cpu_count(host: Host) -> int | None:
    """CPUs that are there, switched on or not (a power mode switches some off)."""
    text = host.text("/sys/devices/system/cpu/possible") or host.text("/sys/devices/system/cpu/present") or ""
    ranges = re.findall(r"(\d{1,6})(?:-(\d{1,6}))?", text)
    return sum(int(last or first) - int(first) + 1 for first, last in ranges) or None


def boot_specification(host: Host) -> str | None:
    """TNSPEC of /etc/nv_boot_control.conf: what the board was flashed as."""
    found = re.search(r"^TNSPEC\s+(\S+)", host.text(BOOT_CONTROL) or "", re.MULTILINE)
    return None if found is None else found[1]


def chip_ids(host: Host) -> list[tuple[str, str]]:
    """(chip, where it was read) from the device tree, the boot configuration and the GPU's driver node."""
    found = [(c, "device-tree compatible") for c in chips() if f"nvidia,{c}" in read_compatible(host)]
    boot = re.search(r"^TEGRA_CHIPID\s+(0x[0-9a-fA-F]+)", host.text(BOOT_CONTROL) or "", re.MULTILINE)
    if boot is not None:
        found += [(c.id, "TEGRA_CHIPID") for c in chips().values() if c.chip_id == boot[1].lower()]
    nodes = {path.rpartition("/")[2] for path in host.glob("/sys/class/devfreq/*")}
    nodes |= {path.rpartition("/")[2] for path in host.glob("/sys/devices/17000000.*")}
    found += [(c.id, "GPU node") for c in chips().values() if nodes & set(c.gpu_nodes)]
    return found


def _chip(host: Host) -> Iterator[Signal]:
    for chip, where in dict(chip_ids(host)).items():
        says = frozenset(part for part, module in modules().items() if module.chip == chip)
        yield Signal("chip", f"{chip} ({where})", says, 5)


def _label(host: Host) -> Iterator[Signal]:
    """The module's own label: the boot loader's copy (readable by all) or the EEPROM itself (root)."""
    for file in (*LABEL_FILES, *BOARD_IDS_FILES):
        text = host.text(file)
        if text:
            part = part_of(text if text.startswith("699") else f"p{text}")
            yield Signal("module label", text, _only(part), 7)
            return
    for file in host.glob(EEPROM_GLOB):
        content = host.raw(file) or b""
        text = content[EEPROM_LABEL].decode("ascii", "replace").strip("\0\xff� ")
        if part_of(text) is not None:
            yield Signal("module label", f"{text} (EEPROM)", _only(part_of(text)), 7)
            return


def _boot_specification(host: Host) -> Iterator[Signal]:
    text = boot_specification(host)
    found = re.match(r"(\d{4})-[^-]*-(\d{4})-", text or "")
    if text is not None and found is not None:
        yield Signal("TNSPEC", text, _only(part_of(f"p{found[1]}-{found[2]}")), 4)


def _compatible(host: Host) -> Iterator[Signal]:
    for text in read_compatible(host):
        part = part_of(text)
        if part is not None:
            yield Signal("device-tree compatible", text, _only(part), 3)
            return


def _memory(host: Host) -> Iterator[Signal]:
    total = memory_mib(host)
    if total is None or re.search(r"(?:^|\s)mem=", host.text("/proc/cmdline") or ""):
        return
    for size in MEMORY_SIZES_GB:
        if LEAST_MEMORY_SHARE * size * 1024 <= total <= size * 1024:
            says = frozenset(part for part, module in modules().items() if size in module.memory_gb)
            yield Signal("memory", f"{total} MiB", says, 8)


def _cpus(host: Host) -> Iterator[Signal]:
    count = cpu_count(host)
    limited = re.search(r"(?:^|\s)(?:maxcpus|nr_cpus|possible_cpus)=", host.text("/proc/cmdline") or "")
    if count is not None and not limited:
        yield Signal("CPUs", str(count), _fitting(lambda m: m.cpus == count), 4)


def _mask(host: Host) -> Iterator[Signal]:
    """A mask fits the modules that have a power mode with it (an NX in 10 W has a Nano 4GB's mask)."""
    mask = read_mask(host)
    if mask is None or not any(chip == "tegra234" for chip, _ in chip_ids(host)):
        return
    fits = _fitting(lambda m: any(mask in _masks(conf) for conf in _configurations(m)))
    if fits:
        yield Signal("TPC mask", str(mask), fits, 2)


def _power_configuration(host: Host) -> Iterator[Signal]:
    name = configuration_of(host)
    if name is not None:
        fits = _fitting(lambda m: name in _configurations(m))
        if fits:
            yield Signal("nvpmodel configuration", name, fits, 2)


def _model(host: Host) -> Iterator[Signal]:
    text = read_model(host)
    words = {word for module in modules().values() for word in module.model_words if word.lower() in text.lower()}
    if words:
        longest = max(words, key=len)
        yield Signal("model string", text, _fitting(lambda m: longest in m.model_words), 1)


def _configurations(module: Module) -> tuple[str, ...]:
    extra = () if module.super is None else (module.super.nvpmodel,)
    return (*((module.nvpmodel,) if module.nvpmodel else ()), *extra)


def _masks(configuration: str) -> set[int | None]:
    table = packaged_tables().get(configuration)
    # The industrial module's table is not packaged; its chip is the full one.
    if table is None:
        return {0} if configuration == "p3701_0008" else set()
    return {mode.tpc_pg_mask for mode in table.modes}


def _fitting(test: Callable[[Module], bool]) -> frozenset[str]:
    return frozenset(part for part, module in modules().items() if test(module))


def _only(part: str | None) -> frozenset[str]:
    return frozenset(() if part is None else (part,))


READERS: tuple[Callable[[Host], Iterable[Signal]], ...] = (
    _chip,
    _label,
    _boot_specification,
    _compatible,
    _memory,
    _cpus,
    _mask,
    _power_configuration,
    _model,
)
