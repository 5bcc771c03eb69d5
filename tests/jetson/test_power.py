"""Power modes on replayed boards, whose nvpmodel and jetson_clocks are small real programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_jetson.board import read_board
from orinspect_jetson.host import Host
from orinspect_jetson.nvpmodel import packaged_tables
from orinspect_jetson.power import STATE_NAME, Power, read_left
from orinspect_jetson.traps import fastest, needs_reboot, warn_about

Compose = Callable[[str, str], Path]


@pytest.mark.parametrize(
    ("configuration", "gpu_max_mhz", "name", "expected"),
    [
        ("p3767_0003_super", 1020, "15W", ["id 0 is 15W on this board, not the fastest", "1.67 times"]),
        ("p3767_0003_super", 1020, "MAXN_SUPER", []),
        ("p3767_0000", 918, "25W", ["2.25 times the GPU throughput of 25W (8 SM at 408 MHz)"]),
        ("p3767_0000", 918, "10W", ["4 of 8 SM stay on", "3.00 times"]),
        ("p3767_0000", 918, "15W", ["4 of 8 SM stay on", "3.00 times"]),
        ("p3701_0000", 1300.5, "MODE_30W", ["8 of 16 SM stay on", "4.25 times"]),
        ("p3701_0000", 1300.5, "MAXN", []),
        ("p3701_0000", None, "MODE_30W", ["8 of 16 SM stay on", "2.67 times"]),
        ("p3767_0003", 625, "15W", []),
    ],
)
def test_traps(configuration: str, gpu_max_mhz: float | None, name: str, expected: list[str]) -> None:
    table = packaged_tables()[configuration]
    mode = table.find(name)
    assert mode is not None
    found = warn_about(mode, table, gpu_max_mhz)
    assert len(found) == len(expected)
    for text, sentence in zip(expected, found, strict=True):
        assert text in sentence


def test_fastest_and_reboot() -> None:
    table = packaged_tables()["p3767_0000_super"]
    best = fastest(table, 1173)
    assert best is not None
    assert best.name == "MAXN_SUPER"
    ten, fifteen, twenty_five = (table.find(name) for name in ("10W", "15W", "25W"))
    assert ten and fifteen and twenty_five
    assert needs_reboot(ten, fifteen) is False
    assert needs_reboot(fifteen, twenty_five) is True


@pytest.fixture
def folder(compose: Compose) -> Path:
    """An Orin Nano 8GB Super in MAXN_SUPER: its three modes differ in clocks only."""
    return compose("orin-nano-8gb-super", "36.4.3")


def power_of(folder: Path) -> Power:
    host = Host(folder)
    table = read_board(host).power_table
    assert table is not None
    return Power(host, table, folder / "state")


def test_modes_go_by_name(folder: Path) -> None:
    power = power_of(folder)
    assert power.now().name == "MAXN_SUPER"
    assert power.mode("25w").id == 1
    with pytest.raises(InputError, match="it has 15W, 25W, MAXN_SUPER"):
        power.mode("0")


def test_held_and_restored(folder: Path) -> None:
    power = power_of(folder)
    with power.held(power.mode("15W")):
        assert power.now().name == "15W"
        assert read_left(power.state) is not None
    assert power.now().name == "MAXN_SUPER"
    assert not (power.state / STATE_NAME).exists()


def test_restored_after_an_exception(folder: Path) -> None:
    power = power_of(folder)
    with pytest.raises(ZeroDivisionError), power.held(power.mode("15W")):
        raise ZeroDivisionError
    assert power.now().name == "MAXN_SUPER"
    assert read_left(power.state) is None


def test_clocks_are_locked_and_put_back(folder: Path) -> None:
    gpu = folder / "root/sys/class/devfreq/17000000.gpu"
    power = power_of(folder)
    with power.held(power.mode("25W"), lock_clocks=True):
        assert (gpu / "min_freq").read_text() == (gpu / "max_freq").read_text()
    assert (gpu / "min_freq").read_text().strip() == "306000000"


def test_a_change_that_needs_a_reboot_is_refused_and_nothing_changes(compose: Compose) -> None:
    power = power_of(compose("orin-nx-16gb", "36.4.3"))
    with pytest.raises(CheckFailed, match="needs a reboot: run  sudo nvpmodel -m 1 "), power.held(power.mode("10W")):
        pytest.fail("the block must not run")
    assert power.now().name == "MAXN"
    assert read_left(power.state) is None


def test_the_tools_own_wish_for_a_reboot_is_heard(folder: Path) -> None:
    """A configuration without masks, whose CPU counts differ: only nvpmodel knows that a reboot is needed."""
    conf = folder / "root/etc/nvpmodel/nvpmodel_p3767_0003_super.conf"
    conf.write_text(
        "< POWER_MODEL ID=0 NAME=A >\nCPU_ONLINE CORE_1 0\n< POWER_MODEL ID=2 NAME=B >\nCPU_ONLINE CORE_1 1\n"
    )
    power = power_of(folder)
    with pytest.raises(CheckFailed, match="needs a reboot"):
        power.set(power.mode("A"))
    assert power.now().name == "B"


def test_without_root(folder: Path) -> None:
    (folder / "root/read-only").write_text("")
    power = power_of(folder)
    with pytest.raises(CheckFailed, match="did not switch to 15W: it needs root"):
        power.set(power.mode("15W"))


def test_a_second_process_is_refused(folder: Path) -> None:
    first, second = power_of(folder), power_of(folder)
    with first.held(first.mode("15W")):
        with pytest.raises(CheckFailed, match="another orinspect process"), second.held(second.mode("25W")):
            pytest.fail("the block must not run")
        assert second.restore_if_left() is None
        assert first.now().name == "15W"
    assert first.now().name == "MAXN_SUPER"


def test_a_damaged_state_file_is_told(folder: Path) -> None:
    power = power_of(folder)
    power.state.mkdir()
    for content in ("{", "[]", '{"mode_id": 2}', '{"mode_id": "x", "mode_name": "15W", "clocks_locked": false}'):
        (power.state / STATE_NAME).write_text(content)
        with pytest.raises(CheckFailed, match="is damaged"):
            power.restore_if_left()
    (power.state / STATE_NAME).write_text(json.dumps({"mode_id": 1, "mode_name": "30W", "clocks_locked": False}))
    with pytest.raises(CheckFailed, match="does not have"):
        power.restore_if_left()


HOLDER = """
import sys, time
from pathlib import Path
from orinspect_jetson.board import read_board
from orinspect_jetson.host import Host
from orinspect_jetson.power import Power
folder = Path(sys.argv[1])
host = Host(folder)
power = Power(host, read_board(host).power_table, folder / "state")
with power.held(power.mode("15W"), lock_clocks=True):
    (folder / "held").write_text("")
    time.sleep(120)
"""


def test_kill_9_while_held_is_mended_at_the_next_start(folder: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)])
    try:
        deadline = time.monotonic() + 60
        while not (folder / "held").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        power = power_of(folder)
        assert power.restore_if_left() is None, "the holder still runs"
        assert power.now().name == "15W"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert power.now().name == "15W"
    left = power.restore_if_left()
    assert left is not None
    assert (left.mode_name, left.clocks_locked) == ("MAXN_SUPER", True)
    assert power.now().name == "MAXN_SUPER"
    gpu = folder / "root/sys/class/devfreq/17000000.gpu"
    assert (gpu / "min_freq").read_text().strip() == "306000000"
    assert power.restore_if_left() is None


class Killed(BaseException):
    """Stands for the moment of a kill: nothing of the dying process runs after it."""


class DyingHost(Host):
    """A host whose n-th program never returns."""

    def __init__(self, folder: Path, programs: int) -> None:
        super().__init__(folder)
        self.left = programs

    def run(self, *command: str, timeout_s: float = 10.0):  # type: ignore[no-untyped-def]
        if self.left == 0:
            raise Killed
        self.left -= 1
        return super().run(*command, timeout_s=timeout_s)


@pytest.mark.parametrize("programs", range(14))
def test_killed_between_any_two_programs(compose: Compose, programs: int) -> None:
    """Wherever the process dies, the next start ends in the former mode with the former clocks and no state file."""
    folder = compose("orin-nano-8gb-super", "36.4.3")
    table = read_board(Host(folder)).power_table
    assert table is not None
    dying = Power(DyingHost(folder, programs), table, folder / "state")
    try:
        with dying.held(dying.mode("15W"), lock_clocks=True):
            pass
    except Killed:
        pass
    power = power_of(folder)
    power.restore_if_left()
    assert power.now().name == "MAXN_SUPER"
    assert read_left(power.state) is None
    gpu = folder / "root/sys/class/devfreq/17000000.gpu"
    assert (gpu / "min_freq").read_text().strip() == "306000000"


def test_a_new_measurement_goes_back_to_the_mode_before_the_killed_one(folder: Path) -> None:
    """The killed process left 15W; the mode to end in is the one before it, not 15W."""
    power = power_of(folder)
    power.state.mkdir()
    (power.state / STATE_NAME).write_text('{"mode_id": 2, "mode_name": "MAXN_SUPER", "clocks_locked": false}')
    power.set(power.mode("15W"))
    with power.held(power.mode("25W")):
        assert power.now().name == "25W"
    assert power.now().name == "MAXN_SUPER"
