"""The table of Jetson modules and chips: data/modules.json, typed. Sources are named in the file."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from importlib import resources
from typing import Any

PART = re.compile(r"p(\d{4})-(\d{4})")
# The label of a module's EEPROM, as the boot loader copies it: 699-1 3767-0000-301 G.1 (a 1 before the board number).
LABEL = re.compile(r"699-[128](\d{4})-(\d{4})")


@dataclass(frozen=True)
class Chip:
    """One Tegra generation. gpu_nodes: devfreq names of its GPU. tpcs: of the full chip, None where unknown."""

    id: str
    name: str
    compute_capability: str
    chip_id: str
    gpu_nodes: tuple[str, ...]
    tpcs: int | None


@dataclass(frozen=True)
class Super:
    """What a Super configuration changes: GPU clock (MHz), memory bandwidth (GB/s), nvpmodel configuration."""

    gpu_max_mhz: float
    bandwidth_gb_s: float
    nvpmodel: str


@dataclass(frozen=True)
class Module:
    """One module. memory_gb: the sizes it is sold with. board_total: rails that add up to the board's input power."""

    part: str
    name: str
    chip: str
    family: str
    memory_gb: tuple[int, ...]
    cpus: int
    sm: int
    gpu_max_mhz: float | None
    dla_cores: int
    bandwidth_gb_s: float
    model_words: tuple[str, ...]
    nvpmodel: str | None
    super: Super | None
    board_total: tuple[str, ...]
    note: str = ""


@functools.cache
def modules() -> dict[str, Module]:
    """All modules by part number ("p3767-0000")."""
    found = (_module(row) for row in read_data("modules.json")["modules"])
    return {module.part: module for module in found}


@functools.cache
def chips() -> dict[str, Chip]:
    """All chips by device-tree name ("tegra234")."""
    table = read_data("modules.json")["chips"]
    return {name: Chip(id=name, **{**row, "gpu_nodes": tuple(row["gpu_nodes"])}) for name, row in table.items()}


def read_data(name: str) -> Any:
    """A JSON data file of this package."""
    return json.loads(resources.files("orinspect_jetson").joinpath("data").joinpath(name).read_text(encoding="utf-8"))


def part_of(text: str) -> str | None:
    """The first part number of a known module in a text: "nvidia,p3768-0000+p3767-0005-super" -> "p3767-0005"."""
    for board, sku in [*PART.findall(text), *LABEL.findall(text)]:
        if f"p{board}-{sku}" in modules():
            return f"p{board}-{sku}"
    return None


def _module(row: dict[str, Any]) -> Module:
    lists = {key: tuple(row[key]) for key in ("memory_gb", "model_words", "board_total")}
    extra = None if row["super"] is None else Super(**row["super"])
    return Module(**{**row, **lists, "super": extra})
