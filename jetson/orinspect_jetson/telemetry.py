"""One line of tegrastats, of any JetPack from 4 to 7.2, as values with units.

The dialects differ in the time stamp, in the brackets around clocks, in the units of rails and in what is missing
without root. A field is either understood with its unit or left out: never guessed. tegrastats(1) is described in the
Jetson Linux Developer Guide, "Tegrastats Utility"; the lines that were read are in tests/data/tegrastats_samples.txt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# A sensor of a powered-off block reads -256 C; nothing that still runs is colder than this.
LEAST_CELSIUS = -100.0
MOST_CELSIUS = 200.0
# Printed by the driver of JetPack 4 whatever the temperature is.
CONSTANT_SENSORS = ("PMIC",)

TIME = re.compile(r"^\s*(\d\d)-(\d\d)-(\d{4}) (\d\d:\d\d:\d\d)(?=\s)")
MEMORY = re.compile(r"(?:^|\s)(RAM|SWAP)\s(\d{1,9})/(\d{1,9})([kMG])B(?=\s|\(|$)")
FREE_BLOCK = re.compile(r"(?:^|\s)RAM\s\S+\s\(lfb (\d{1,9})x(\d{1,6})([kMG])B\)")
CPUS = re.compile(r"(?:^|\s)[cC][pP][uU]\s\[([^\]\[]*)\](?:@(\d{1,6})(?=\s|$))?")
LOAD = re.compile(r"(?:(\d{1,3})%)?(?:@(?:(\d{1,6})|\[([^\]\[]*)\]))?")
RAIL = re.compile(r"(-?\d{1,9})(?:mW)?(?:/-?\d{1,9}(?:mW)?){0,2}")
# The rails of JetPack 4, the only one that prints them without a unit.
UNITLESS_RAIL = re.compile(r"VDD_\w+|POM_5V_\w+|GPU|CPU|SOC|CV|VDDRQ|SYS5V")
CELSIUS = re.compile(r"(-?\d{1,4}(?:\.\d{1,6})?)C(?:/-?\d{1,4}(?:\.\d{1,6})?C)?")
ENGINE = re.compile(r"(?:APE|AVP|MSENC|NVENC|NVDEC|NVJPG|NVDLA|PVA|OFA|VIC|SE|TSEC)\d{0,2}(?:_FREQ)?")
KIB = {"k": 1, "M": 1024, "G": 1024 * 1024}


@dataclass(frozen=True)
class Load:
    """An engine or a CPU. percent: of its current clock, 0..100. mhz: one clock a cluster. None and (): not said."""

    percent: int | None = None
    mhz: tuple[int, ...] = ()


@dataclass(frozen=True)
class Rail:
    """Power of one rail, mW: now, averaged since tegrastats began, and the peak (JetPack 7.2 only)."""

    now_mw: int
    average_mw: int | None = None
    peak_mw: int | None = None


@dataclass(frozen=True)
class Sample:
    """What one line says. time: of the board's clock, ISO without a zone. Memory in KiB.

    cpus: None for a CPU that is switched off. engines: by name without _FREQ; None for one that is off. temperatures:
    by sensor, C, without sensors that are off. rails: by name, without the unconnected ones. None or empty: not said.
    """

    time: str | None = None
    ram_used_kib: int | None = None
    ram_total_kib: int | None = None
    swap_used_kib: int | None = None
    swap_total_kib: int | None = None
    largest_free_block_kib: int | None = None
    cpus: tuple[Load | None, ...] = ()
    emc: Load | None = None
    gpu: Load | None = None
    engines: dict[str, Load | None] = field(default_factory=dict)
    temperatures_c: dict[str, float] = field(default_factory=dict)
    rails: dict[str, Rail] = field(default_factory=dict)

    @property
    def hottest_c(self) -> float | None:
        """The highest temperature of a sensor that measures one, C."""
        measured = [celsius for name, celsius in self.temperatures_c.items() if name not in CONSTANT_SENSORS]
        return max(measured, default=None)


def parse_line(line: str) -> Sample:
    """Read one line. Any text is accepted; what is not understood is left out. Never raises."""
    memory = {found[1]: found for found in MEMORY.finditer(line)}
    ram_used, ram_total = _memory(memory.get("RAM"))
    swap_used, swap_total = _memory(memory.get("SWAP"))
    block = FREE_BLOCK.search(line)
    loads, rails, temperatures = _fields(line)
    return Sample(
        time=_time(line),
        ram_used_kib=ram_used,
        ram_total_kib=ram_total,
        swap_used_kib=swap_used,
        swap_total_kib=swap_total,
        # tegrastats prints how many free blocks of the largest size there are, and that size.
        largest_free_block_kib=None if block is None else int(block[2]) * KIB[block[3]],
        cpus=_cpus(line),
        emc=loads.pop("EMC", None),
        gpu=_gpu(loads),
        engines=loads,
        temperatures_c=temperatures,
        rails=rails,
    )


def parse_load(text: str) -> Load | None:
    """ "12%", "12%@918", "@[0,0]", "12%@[1300,1300]", "@1600" -> Load; None for anything else (also above 100 %)."""
    found = LOAD.fullmatch(text)
    if found is None or not text:
        return None
    percent = None if found[1] is None else int(found[1])
    if percent is not None and percent > 100:
        return None
    parts = [found[2]] if found[2] is not None else (found[3] or "").split(",") if found[3] is not None else []
    if any(re.fullmatch(r"\d{1,6}", part) is None for part in parts):
        return None
    return Load(percent, tuple(int(part) for part in parts))


def _fields(line: str) -> tuple[dict[str, Load | None], dict[str, Rail], dict[str, float]]:
    """Engines, rails and temperatures: everything that is NAME VALUE or NAME@VALUE."""
    loads: dict[str, Load | None] = {}
    rails: dict[str, Rail] = {}
    temperatures: dict[str, float] = {}
    # The guide also prints "X %@[Y, Y]": bring a value into one word.
    words = re.sub(r"\[[^\]\[]*\]", lambda found: re.sub(r"\s", "", found[0]), line.replace(" %", "%")).split()
    for name, value in zip(words, [*words[1:], ""], strict=False):
        sensor, at, celsius = name.partition("@")
        if at and (found := CELSIUS.fullmatch(celsius)) and re.fullmatch(r"[A-Za-z]\w*", sensor):
            degrees = float(found[1])
            if LEAST_CELSIUS < degrees < MOST_CELSIUS:
                temperatures.setdefault(sensor, degrees)
        elif _is_clocked(name):
            load = _clocked(name, value)
            if load is not None or value == "off":
                loads.setdefault(name.removesuffix("_FREQ"), load)
        elif name not in ("RAM", "SWAP", "IRAM", "NC") and re.fullmatch(r"[A-Za-z]\w*", name):
            rail = _rail(name, value)
            if rail is not None:
                rails.setdefault(name, rail)
    return loads, rails, temperatures


def _is_clocked(name: str) -> bool:
    return name in ("EMC", "EMC_FREQ", "GR3D", "GR3D_FREQ", "GR3D2_FREQ") or ENGINE.fullmatch(name) is not None


def _clocked(name: str, value: str) -> Load | None:
    """A load; a bare number is a clock in MHz (APE 174, VIC_FREQ 729), but for the GPU and the memory it is none."""
    if re.fullmatch(r"\d{1,6}", value):
        return Load(None, (int(value),)) if ENGINE.fullmatch(name) else None
    return parse_load(value)


def _gpu(loads: dict[str, Load | None]) -> Load | None:
    """The GPU's load. GR3D2 is the clock of the second GPC of the same GPU: its percentage says nothing new."""
    first, second = loads.pop("GR3D", None), loads.pop("GR3D2", None)
    if first is None:
        return None
    return Load(first.percent, first.mhz + (second.mhz if second is not None else ()))


def _rail(name: str, text: str) -> Rail | None:
    """ "467mW/467mW", or "467/467" (JetPack 4) of a known rail -> Rail. Other numbers without a unit are not power."""
    found = RAIL.fullmatch(text)
    if found is None:
        return None
    parts = text.split("/")
    has_unit = [part.endswith("mW") for part in parts]
    if not all(has_unit) and (any(has_unit) or len(parts) != 2 or UNITLESS_RAIL.fullmatch(name) is None):
        return None
    return Rail(*(int(part.removesuffix("mW")) for part in parts))


def _cpus(line: str) -> tuple[Load | None, ...]:
    found = CPUS.search(line)
    if found is None or not found[1].strip():
        return ()
    shared = () if found[2] is None else (int(found[2]),)
    cpus: list[Load | None] = []
    for part in found[1].split(","):
        load = parse_load(part.strip())
        if load is None and part.strip() != "off":
            return ()
        cpus.append(None if load is None else Load(load.percent, load.mhz or shared))
    return tuple(cpus)


def _memory(found: re.Match[str] | None) -> tuple[int | None, int | None]:
    if found is None:
        return None, None
    return int(found[2]) * KIB[found[4]], int(found[3]) * KIB[found[4]]


def _time(line: str) -> str | None:
    found = TIME.match(line)
    if found is None or not (1 <= int(found[1]) <= 12 and 1 <= int(found[2]) <= 31):
        return None
    return f"{found[3]}-{found[1]}-{found[2]}T{found[4]}"
