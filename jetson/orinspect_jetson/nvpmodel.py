"""Power modes: the board's own /etc/nvpmodel.conf, or else the packaged copy of NVIDIA's (data/nvpmodel_orin.json)."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from orinspect_jetson.host import Host
from orinspect_jetson.modules import read_data

CONF = "/etc/nvpmodel.conf"
STATUS = "/var/lib/nvpmodel/status"
MODE_LINE = re.compile(r"<\s*POWER_MODEL\s+ID=(\d{1,4})\s+NAME=([^\s>]+)\s*>")
DEFAULT_LINE = re.compile(r"<\s*PM_CONFIG\s+DEFAULT=(\d{1,4})\s*>")
STATUS_LINE = re.compile(r"pmode:\s*0*(\d{1,4})")
CONF_NAME = re.compile(r"nvpmodel_(\w+(?:-\w+)*)\.conf")
NUMBER = r"\s+(-?(?:0x[0-9a-fA-F]{1,16}|\d{1,18}))\b"
TPCS_OF_ORIN = 8
SM_PER_TPC = 2


@dataclass(frozen=True)
class PowerMode:
    """One mode. Clocks are caps, in MHz; None: uncapped (the chip's maximum), or not recorded in the table.

    sm: streaming multiprocessors left on by tpc_pg_mask (set bits are TPCs switched off), None where it is not set.
    """

    id: int
    name: str
    cpus: int | None
    cpu_max_mhz: float | None
    gpu_max_mhz: float | None
    emc_max_mhz: float | None
    dla_max_mhz: float | None
    tpc_pg_mask: int | None
    sm: int | None


@dataclass(frozen=True)
class PowerTable:
    """The modes of a board. origin: the file they were read from. configuration: "p3767_0003_super", if known."""

    origin: str
    configuration: str | None
    modes: tuple[PowerMode, ...]
    default_id: int | None

    def find(self, name: str) -> PowerMode | None:
        """A mode by its name, in any case and with or without MODE_ ("30W" is MODE_30W); never by number."""
        return next((mode for mode in self.modes if _plain(mode.name) == _plain(name)), None)

    def by_id(self, number: int) -> PowerMode | None:
        """A mode by its id."""
        return next((mode for mode in self.modes if mode.id == number), None)


@functools.cache
def packaged_tables() -> dict[str, PowerTable]:
    """NVIDIA's tables by configuration name ("p3701_0000", "p3767_0003_super")."""
    tables = {}
    for key, table in read_data("nvpmodel_orin.json").items():
        found = CONF_NAME.search(key)
        if found is None:
            continue
        modes = tuple(_packaged_mode(row) for row in table["modes"])
        tables[found[1]] = PowerTable(f"packaged {key}", found[1], modes, int(table["default"]))
    return tables


def parse_conf(text: str, origin: str = CONF, configuration: str | None = None) -> PowerTable:
    """Modes of an nvpmodel.conf; a file without modes gives a table without modes.

    SM counts are filled in for Orin's configurations only: other chips number their TPCs in other ways.
    """
    is_orin = (configuration or "").startswith(("p3701", "p3767"))
    default = DEFAULT_LINE.search(text)
    marks = list(MODE_LINE.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    # Without a mode there is one end and no mark.
    modes = tuple(_parsed_mode(mark, text[mark.end() : end], is_orin) for mark, end in zip(marks, ends, strict=False))
    return PowerTable(origin, configuration, modes, None if default is None else int(default[1]))


def read_table(host: Host, configuration: str | None) -> PowerTable | None:
    """The board's own table when it has one, else the packaged one of that configuration, else None."""
    text = host.text(CONF)
    if text is not None and MODE_LINE.search(text):
        return parse_conf(text, CONF, configuration_of(host) or configuration)
    return packaged_tables().get(configuration or "")


def configuration_of(host: Host) -> str | None:
    """The name of the configuration that /etc/nvpmodel.conf points at ("p3767_0003_super"), or None."""
    try:
        found = CONF_NAME.fullmatch(host.resolve(CONF).resolve().name)
    except OSError:
        return None
    return None if found is None else found[1]


def current_mode(host: Host) -> tuple[int, str | None] | None:
    """(id, name) of the active mode, from `nvpmodel -q` or else its status file; None when neither answers."""
    answer = host.run("nvpmodel", "-q", timeout_s=10)
    if answer is not None:
        found = parse_query(answer.text)
        if found is not None:
            return found
    status = STATUS_LINE.search(host.text(STATUS) or "")
    return None if status is None else (int(status[1]), None)


def parse_query(text: str) -> tuple[int, str] | None:
    """(id, name) of `nvpmodel -q`. Lines of NVPM warnings and errors before, between and after are skipped."""
    lines = [line.strip() for line in text.splitlines() if not line.strip().startswith("NVPM")]
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("NV Power Mode:")), None)
    number = next((int(line) for line in lines if re.fullmatch(r"\d{1,3}", line)), None)
    return None if name is None or number is None else (number, name)


def active_sm(mask: int) -> int:
    """Streaming multiprocessors of an Orin GPU under a TPC power-gating mask: two for every one of 8 bits not set."""
    return SM_PER_TPC * (TPCS_OF_ORIN - (mask & 0xFF).bit_count())


def _packaged_mode(row: dict[str, int | str | None]) -> PowerMode:
    number = {key: value for key, value in row.items() if isinstance(value, int)}
    khz = number.get("cpu_max_khz")
    dlas = [hz for key in ("dla0_core_max_hz", "dla1_core_max_hz") if (hz := number.get(key)) is not None]
    return PowerMode(
        id=number["id"],
        name=str(row["name"]),
        cpus=number.get("cpu_online"),
        cpu_max_mhz=None if khz is None else khz / 1e3,
        gpu_max_mhz=_mhz(number.get("gpu_max_hz")),
        emc_max_mhz=_mhz(number.get("emc_max_hz")),
        dla_max_mhz=_mhz(max(dlas, default=None)),
        tpc_pg_mask=number.get("tpc_pg_mask"),
        sm=number.get("sm"),
    )


def _parsed_mode(mark: re.Match[str], body: str, is_orin: bool) -> PowerMode:
    cores = re.findall(r"^\s*CPU_ONLINE\s+CORE_\d+\s+([01])\s*$", body, re.MULTILINE)
    cpu_khz = _setting(body, r"CPU_\w+\s+MAX_FREQ")
    mask = _setting(body, r"TPC_POWER_GATING\s+TPC_PG_MASK")
    return PowerMode(
        id=int(mark[1]),
        name=mark[2],
        cpus=cores.count("1") or None,
        cpu_max_mhz=None if cpu_khz is None else cpu_khz / 1e3,
        gpu_max_mhz=_mhz(_setting(body, r"GPU\s+MAX_FREQ")),
        emc_max_mhz=_mhz(_setting(body, r"EMC\s+MAX_FREQ")),
        dla_max_mhz=_mhz(_setting(body, r"DLA\d?_CORE\s+MAX_FREQ")),
        tpc_pg_mask=mask,
        sm=active_sm(mask) if mask is not None and is_orin else None,
    )


def _setting(body: str, name: str) -> int | None:
    """The largest value of a setting, or None: absent, or -1 or 0 for a clock (uncapped)."""
    values = [
        int(value, 16 if "x" in value else 10) for value in re.findall(r"^\s*" + name + NUMBER, body, re.MULTILINE)
    ]
    is_mask = "MASK" in name
    kept = [value for value in values if value >= 0 and (is_mask or value > 0)]
    return max(kept, default=None)


def _mhz(hz: int | None) -> float | None:
    return None if hz is None else hz / 1e6


def _plain(name: str) -> str:
    return name.strip().upper().replace(" ", "_").removeprefix("MODE_")
