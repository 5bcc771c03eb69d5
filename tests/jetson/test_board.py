"""The verdict over every board x release, and over boards that lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orinspect_jetson.board import Board, read_board
from orinspect_jetson.host import Host
from orinspect_jetson.identity import weigh
from orinspect_jetson.modules import modules
from orinspect_jetson.signals import Signal

TABLE = json.loads((Path(__file__).parents[1] / "data" / "boards" / "boards.json").read_text())
PAIRS = [(board, l4t) for board in TABLE["boards"] for l4t in board["releases"]]
IDS = [f"{board['id']}-{l4t}" for board, l4t in PAIRS]
Compose = Callable[[str, str], Path]


@pytest.mark.parametrize(("board", "l4t"), PAIRS, ids=IDS)
def test_verdict_matrix(board: dict[str, Any], l4t: str, compose: Compose) -> None:
    release = TABLE["releases"][l4t]
    found = read_board(Host(compose(board["id"], l4t)))
    identity, software = found.identity, found.software
    assert identity.is_jetson
    assert identity.name == board["expect"]
    assert identity.module is not None
    assert identity.module.part == board["part"]
    assert identity.certainty == "certain"
    assert len(identity.signals) >= 5
    assert identity.super == board["super"]
    assert (software.l4t, software.jetpack) == (l4t, release["jetpack"])
    assert (software.tensorrt, software.cuda) == (release["tensorrt"], release["cuda"] + ".0")
    assert software.sbsa == release["sbsa"]
    assert software.dla_compiler != release["sbsa"]
    assert found.power_mode is not None
    assert found.power_mode.id == board["mode"]
    assert found.sm_active == board["sm_active"]
    # A carrier maker's board has no -super in its TNSPEC, and that is no conflict.
    assert found.conflicts == ()


def test_every_orin_module_is_in_the_matrix() -> None:
    assert {row["part"] for row in TABLE["boards"]} >= {p for p, m in modules().items() if m.chip == "tegra234"}
    majors = {l4t.split(".")[0] for _, l4t in PAIRS}
    assert majors >= {"35", "36", "38", "39"}


class Lie:
    """Edits of a composed board."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, path: str, content: str) -> Lie:
        file = self.folder / "root" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(content)
        return self

    def remove(self, *paths: str) -> Lie:
        for path in paths:
            (self.folder / "root" / path).unlink(missing_ok=True)
        return self

    def board(self) -> Board:
        return read_board(Host(self.folder))


MODEL = "sys/firmware/devicetree/base/model"
COMPATIBLE = "sys/firmware/devicetree/base/compatible"
LABEL = "proc/device-tree/chosen/nvidia,sku"
NX = "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0"


def test_nano_4gb_that_calls_itself_nx(compose: Compose) -> None:
    found = Lie(compose("orin-nano-4gb", "36.4.3")).write(MODEL, NX).board()
    assert found.identity.name == "Jetson Orin Nano 4GB"
    assert [c for c in found.conflicts if "model string" in c and "Orin NX" in c]
    assert found.identity.certainty == "certain"


def test_nano_4gb_flashed_as_nx_in_every_file(compose: Compose) -> None:
    """Model, compatible, TNSPEC and nvpmodel configuration all say NX 16GB: memory and CPUs cannot be edited."""
    lie = Lie(compose("orin-nano-4gb", "36.4.3")).remove(LABEL).write(MODEL, NX)
    lie.write(COMPATIBLE, "nvidia,p3768-0000+p3767-0000\0nvidia,p3767-0000\0nvidia,tegra234\0")
    lie.write("etc/nv_boot_control.conf", "TNSPEC 3767-300-0000-G.1-1-1-jetson-orin-nano-devkit-\nTEGRA_CHIPID 0x23\n")
    (lie.folder / "root/etc/nvpmodel.conf").unlink()
    lie.write("etc/nvpmodel/nvpmodel_p3767_0000.conf", "< POWER_MODEL ID=0 NAME=MAXN >\n")
    (lie.folder / "root/etc/nvpmodel.conf").symlink_to("/etc/nvpmodel/nvpmodel_p3767_0000.conf")
    found = lie.board()
    assert found.identity.module is not None
    assert found.identity.module.part == "p3767-0004"
    assert found.identity.certainty == "likely"
    names = " ".join(found.conflicts)
    assert all(word in names for word in ("model string", "device-tree compatible", "TNSPEC", "nvpmodel configuration"))


def test_nx_8gb_with_the_device_tree_of_the_16gb(compose: Compose) -> None:
    """Seen in the field: compatible p3767-0000-super on a board whose TNSPEC, memory and CPUs are of p3767-0001."""
    lie = Lie(compose("orin-nx-8gb-super", "36.4.3")).remove(LABEL)
    lie.write(COMPATIBLE, "nvidia,p3768-0000+p3767-0000-super\0nvidia,p3767-0000\0nvidia,tegra234\0")
    found = lie.board()
    assert found.identity.name == "Jetson Orin NX 8GB Super"
    assert any("device-tree compatible" in c and "16GB" in c for c in found.conflicts)


def test_a_carve_out_does_not_change_the_module(compose: Compose) -> None:
    lie = Lie(compose("orin-nx-16gb", "36.4.3")).write("proc/meminfo", "MemTotal: 7600000 kB\n")
    found = lie.board()
    assert found.identity.name == "Jetson Orin NX 16GB"
    assert any(c.startswith("memory") for c in found.conflicts)


def test_limits_on_the_kernel_command_line_silence_memory_and_cpus(compose: Compose) -> None:
    lie = Lie(compose("orin-nx-16gb", "36.4.3")).write("proc/cmdline", "mem=4G maxcpus=2 quiet\n")
    found = (
        lie.write("proc/meminfo", "MemTotal: 3900000 kB\n").write("sys/devices/system/cpu/possible", "0-1\n").board()
    )
    assert found.identity.name == "Jetson Orin NX 16GB"
    assert found.conflicts == ()


def test_label_of_the_eeprom_is_read_when_the_boot_loader_left_no_copy(compose: Compose) -> None:
    lie = Lie(compose("orin-nx-16gb", "36.4.3")).remove(LABEL)
    image = bytearray(b"\xff" * 256)
    image[20:49] = b"699-13767-0000-301 G.1".ljust(29, b"\0")
    eeprom = lie.folder / "root/sys/bus/i2c/devices/0-0050/eeprom"
    eeprom.parent.mkdir(parents=True)
    eeprom.write_bytes(bytes(image))
    signals = {signal.name: signal.value for signal in lie.board().identity.signals}
    assert signals["module label"] == "699-13767-0000-301 G.1 (EEPROM)"


def test_unknown_part_of_a_known_chip_is_not_guessed(compose: Compose) -> None:
    """A module of tomorrow: nothing known names it, its memory fits nothing."""
    lie = Lie(compose("agx-orin-64gb", "39.2.0")).remove("etc/nvpmodel.conf")
    lie.write(LABEL, "699-13799-0001-300 A.0\0").write(MODEL, "NVIDIA Jetson Something\0")
    lie.write(COMPATIBLE, "nvidia,p3799-0001\0nvidia,tegra234\0")
    lie.write("etc/nv_boot_control.conf", "TNSPEC 3799-300-0001-A.0-1-1-jetson-x-\nTEGRA_CHIPID 0x23\n")
    lie.write("proc/meminfo", f"MemTotal: {20 * 1024 * 1024} kB\n").write("sys/devices/system/cpu/possible", "0-9\n")
    found = lie.remove("sys/devices/platform/gpu.0/tpc_pg_mask").board()
    assert found.identity.is_jetson
    assert found.identity.module is None
    assert found.identity.certainty == "doubtful"
    assert "module not known" in found.identity.name
    assert any("not in the table" in c for c in found.conflicts)


def test_container_without_device_tree_and_release_file(compose: Compose) -> None:
    """An unprivileged container: /sys/firmware is masked, the image brings neither nv_tegra_release nor nvpmodel."""
    lie = Lie(compose("agx-orin-64gb", "36.4.4"))
    lie.remove(MODEL, COMPATIBLE, LABEL, "etc/nv_tegra_release", "etc/nv_boot_control.conf", "etc/nvpmodel.conf")
    lie.remove("var/lib/nvpmodel/status", "var/lib/dpkg/versions").write(".dockerenv", "")
    (lie.folder / "bin/nvpmodel").unlink()
    found = lie.board()
    assert found.software.in_container
    assert found.software.l4t is None
    # Memory, CPUs, TPC mask and the GPU's node are left: the AGX modules of 64 GB; which of them cannot be known.
    assert set(found.identity.candidates) == {"p3701-0000", "p3701-0005", "p3701-0008"}
    assert found.identity.chip is not None
    assert found.identity.chip.compute_capability == "8.7"
    assert found.sm_active == 16
    assert found.software.tensorrt == "10.3.0"


def test_container_of_another_release_is_told_by_the_kernel(compose: Compose) -> None:
    lie = Lie(compose("orin-nx-16gb", "36.4.3")).write(".dockerenv", "")
    lie.write("etc/nv_tegra_release", "# R35 (release), REVISION: 4.1, GCID: 1, BOARD: t186ref, EABI: aarch64\n")
    conflicts = " ".join(lie.board().conflicts)
    assert "35.4.1" in conflicts
    assert "5.15.148-tegra is of R36" in conflicts
    assert "container" in conflicts


def test_l4t_package_stands_in_for_the_release_file(compose: Compose) -> None:
    found = Lie(compose("orin-nx-16gb", "36.4.3")).remove("etc/nv_tegra_release").board()
    assert found.software.l4t == "36.4.3"
    assert found.software.jetpack == "6.2"


def test_the_user_space_is_told_by_its_folders_when_the_release_is_not_known(compose: Compose) -> None:
    lie = Lie(compose("agx-orin-64gb", "39.2.0")).remove("etc/nv_tegra_release").write("var/lib/dpkg/versions", "")
    found = lie.board()
    assert found.software.l4t is None
    assert found.software.sbsa is True


def test_release_newer_than_the_table(compose: Compose) -> None:
    lie = Lie(compose("orin-nx-16gb-super", "39.2.0"))
    lie.write("etc/nv_tegra_release", "# R39 (release), REVISION: 9.4, GCID: 1, BOARD: generic\n")
    found = lie.write("var/lib/dpkg/versions", "").board()
    assert found.software.l4t == "39.9.4"
    assert found.software.jetpack is None
    assert not found.software.is_exact
    assert found.software.sbsa is True


def test_release_that_never_supported_the_chip(compose: Compose) -> None:
    lie = Lie(compose("orin-nx-16gb-super", "39.2.0"))
    lie.write("etc/nv_tegra_release", "# R38 (release), REVISION: 2.0, GCID: 1, BOARD: generic\n")
    assert any("never supported Orin" in c for c in lie.board().conflicts)


def test_super_modes_on_firmware_that_is_not_super(compose: Compose) -> None:
    """JetPack 7.2 from the ISO: the modes are Super's, the firmware's TNSPEC is not, the GPU stays at 624 MHz."""
    lie = Lie(compose("orin-nano-8gb-super", "39.2.0"))
    lie.write("etc/nv_boot_control.conf", "TNSPEC 3767-300-0005-X.1-1-1-jetson-orin-nano-devkit-\nTEGRA_CHIPID 0x23\n")
    found = lie.board()
    assert found.identity.super is True
    assert any("TNSPEC (not Super)" in c for c in found.conflicts)


@pytest.mark.parametrize(
    ("machine", "files", "what"),
    [
        ("x86_64", {"proc/cpuinfo": "model name\t: AMD Ryzen 9\n"}, "AMD Ryzen 9"),
        (
            "aarch64",
            {MODEL: "Raspberry Pi 5 Model B Rev 1.0\0", COMPATIBLE: "raspberrypi,5-model-b\0brcm,bcm2712\0"},
            "Raspberry Pi 5 Model B Rev 1.0",
        ),
        ("aarch64", {"proc/cpuinfo": "processor : 0\n"}, "aarch64 machine"),
        ("", {}, "unknown machine"),
    ],
)
def test_not_a_jetson(tmp_path: Path, machine: str, files: dict[str, str], what: str) -> None:
    lie = Lie(tmp_path)
    lie.write("etc/hostname", "x")
    for path, content in files.items():
        lie.write(path, content)
    if machine:
        program = tmp_path / "bin/uname"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho {machine}\n")
        program.chmod(0o755)
    identity = lie.board().identity
    assert not identity.is_jetson
    assert identity.name.startswith("not a Jetson: ")
    assert what in identity.name
    assert identity.certainty == "certain"


def test_l4t_user_space_on_x86_is_a_conflict(compose: Compose) -> None:
    folder = compose("orin-nx-16gb", "36.4.3")
    (folder / "bin/uname").write_text("#!/bin/sh\necho x86_64\n")
    identity = read_board(Host(folder)).identity
    assert not identity.is_jetson
    assert identity.certainty == "doubtful"
    assert "L4T 36.4.3" in identity.conflicts[0]


def test_this_machine_is_answered() -> None:
    found = read_board(Host("/"))
    assert found.cpus is not None
    assert found.identity.name


parts = st.sampled_from(sorted(modules()))
signals = st.builds(Signal, st.text(max_size=5), st.text(max_size=5), st.frozensets(parts), st.integers(1, 8))


@settings(max_examples=200, deadline=None)
@given(st.lists(signals, max_size=9))
def test_the_winner_is_never_outweighed(found: list[Signal]) -> None:
    module, candidates, confidence = weigh(found)
    assert 0 <= confidence <= 1
    total = {part: sum(s.weight for s in found if part in s.says) for part in modules()}
    assert all(total[part] == max(total.values()) for part in candidates)
    assert module is None or module.part in candidates


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=120), which=st.integers(0, 7))
def test_garbage_in_any_file_never_raises(content: bytes, which: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    files = (MODEL, COMPATIBLE, LABEL, "etc/nv_boot_control.conf", "proc/meminfo", "etc/nv_tegra_release")
    files += ("sys/devices/system/cpu/possible", "etc/nvpmodel.conf")
    folder = tmp_path_factory.mktemp("garbage")
    for number, path in enumerate(files):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if number == which else b"nvidia,tegra234\0")
    assert read_board(Host(folder)).identity.name
