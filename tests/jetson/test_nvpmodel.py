"""Power tables: the packaged ones against NVIDIA's numbers, and the parsers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orinspect_jetson.host import Host
from orinspect_jetson.modules import modules
from orinspect_jetson.nvpmodel import active_sm, current_mode, packaged_tables, parse_conf, parse_query, read_table

Compose = Callable[[str, str], Path]


@pytest.mark.parametrize(
    ("configuration", "name", "sm", "gpu_mhz", "is_default"),
    [
        ("p3701_0000", "MODE_30W", 8, 612, True),
        ("p3701_0000", "MAXN", 16, None, False),
        ("p3701_0004", "MODE_40W", 14, 816, False),
        ("p3767_0000", "10W", 4, 612, False),
        ("p3767_0000", "25W", 8, 408, False),
        ("p3767_0000_super", "40W", 8, 1173, True),
        ("p3767_0003", "15W", 8, None, True),
        ("p3767_0003_super", "15W", 8, 612, False),
        ("p3767_0003_super", "MAXN_SUPER", 8, 1020, False),
        ("p3767_0004", "7W_CPU", 4, 306, False),
    ],
)
def test_packaged_modes(configuration: str, name: str, sm: int, gpu_mhz: float | None, is_default: bool) -> None:
    table = packaged_tables()[configuration]
    mode = table.find(name)
    assert mode is not None
    assert (mode.sm, mode.gpu_max_mhz) == (sm, gpu_mhz)
    assert (table.default_id == mode.id) is is_default


def test_sm_of_every_packaged_mode_follows_its_mask_and_fits_its_module() -> None:
    for module in modules().values():
        names = [module.nvpmodel, module.super.nvpmodel if module.super else None]
        for table in (packaged_tables()[n] for n in names if n in packaged_tables()):
            assert max(mode.sm or 0 for mode in table.modes) == module.sm
            assert max(mode.cpus or 0 for mode in table.modes) == module.cpus
            assert all(mode.tpc_pg_mask is not None and mode.sm == active_sm(mode.tpc_pg_mask) for mode in table.modes)


@pytest.mark.parametrize(("mask", "sm"), [(0, 16), (128, 14), (240, 8), (248, 6), (252, 4)])
def test_mask(mask: int, sm: int) -> None:
    assert active_sm(mask) == sm


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NV Power Mode: MAXN\n0\n", (0, "MAXN")),
        ("NV Power Mode: MAXN_SUPER\n2", (2, "MAXN_SUPER")),
        (
            "NVPM WARN: fan mode is not set to cool\nNV Power Mode: MODE_30W\n2\nNVPM ERROR: Error opening x: 13\n",
            (2, "MODE_30W"),
        ),
        ("NV Fan Mode:quiet\nNV Power Mode: 15W\n0", (0, "15W")),
        ("NVPM ERROR: Failed to parse pm.conf\n", None),
        ("", None),
    ],
)
def test_query(text: str, expected: tuple[int, str] | None) -> None:
    assert parse_query(text) == expected


@given(st.text(max_size=200))
def test_any_text_is_parsed_without_an_exception(text: str) -> None:
    parse_query(text)
    parse_conf(text)
    parse_conf(f"< POWER_MODEL ID=1 NAME=X >\n{text}")
    parse_conf(f"< POWER_MODEL ID=1 NAME=X >\nGPU MAX_FREQ {'9' * 5000}\n")


def test_the_boards_own_configuration_comes_first(compose: Compose) -> None:
    folder = compose("orin-nano-8gb-super", "36.4.3")
    conf = folder / "root/etc/nvpmodel/nvpmodel_p3767_0003_super.conf"
    conf.write_text(conf.read_text() + "\n< POWER_MODEL ID=7 NAME=MINE >\nGPU MAX_FREQ 510000000\nEMC MAX_FREQ 0\n")
    table = read_table(Host(folder), "p3767_0003_super")
    assert table is not None
    assert table.configuration == "p3767_0003_super"
    mine = table.find("mine")
    assert mine is not None
    assert (mine.id, mine.gpu_max_mhz, mine.emc_max_mhz, mine.sm) == (7, 510, None, None)
    conf.unlink()
    table = read_table(Host(folder), "p3767_0003_super")
    assert table is not None
    assert "packaged" in table.origin
    assert read_table(Host(folder), None) is None


def test_own_configuration_reads_like_the_packaged_table(compose: Compose) -> None:
    """The parser of nvpmodel.conf and the reader of the JSON table agree on every mode of a whole board."""
    for board, l4t in (("orin-nx-16gb-super", "36.4.3"), ("agx-orin-32gb", "36.4.4"), ("orin-nano-4gb", "36.4.3")):
        table = read_table(Host(compose(board, l4t)), None)
        assert table is not None
        packaged = packaged_tables()[table.configuration or ""]
        assert [(m.name, m.cpus, m.gpu_max_mhz, m.emc_max_mhz, m.sm) for m in table.modes] == [
            (m.name, m.cpus, m.gpu_max_mhz, m.emc_max_mhz, m.sm) for m in packaged.modes
        ]
        assert table.default_id == packaged.default_id


def test_current_mode_from_the_tool_or_else_its_status_file(compose: Compose) -> None:
    folder = compose("orin-nano-8gb-super", "36.4.3")
    (folder / "root/noisy").write_text("")
    assert current_mode(Host(folder)) == (2, "MAXN_SUPER")
    (folder / "bin/nvpmodel").unlink()
    assert current_mode(Host(folder)) == (2, None)
    (folder / "root/var/lib/nvpmodel/status").unlink()
    assert current_mode(Host(folder)) is None
