"""The seam: what a recorded board may and may not do."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from orinspect_edge_runtime.errors import InputError
from orinspect_jetson.host import MAX_BYTES, TIMED_OUT, Host


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    return tmp_path


def program(folder: Path, name: str, script: str) -> None:
    file = folder / "bin" / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_reads_text_bytes_strings_and_numbers(folder: Path) -> None:
    (folder / "root/etc/a").write_bytes(b"one\0two\0\n")
    (folder / "root/etc/n").write_text("0x23\n")
    host = Host(folder)
    assert host.raw("/etc/a") == b"one\0two\0\n"
    assert host.text("/etc/a") == "one\0two"
    assert host.strings("/etc/a") == ["one", "two"]
    assert host.number("/etc/n") == 0x23
    assert (host.text("/etc/none"), host.number("/etc/a"), host.strings("/etc/none")) == (None, None, [])


def test_a_fifo_a_folder_and_a_huge_file_do_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "root/etc/pipe")
    (folder / "root/etc/big").write_bytes(b"x" * (MAX_BYTES + 10))
    host = Host(folder)
    assert host.raw("/etc/pipe") is None
    assert host.raw("/etc") is None
    assert len(host.raw("/etc/big") or b"") == MAX_BYTES


def test_links_stay_inside_the_root(folder: Path) -> None:
    (folder / "secret").write_text("of the replaying machine")
    (folder / "root/etc/conf").write_text("inside")
    (folder / "root/etc/absolute").symlink_to("/etc/conf")
    (folder / "root/etc/upward").symlink_to("../../../../../../etc/conf")
    (folder / "root/etc/escape").symlink_to("../../secret")
    (folder / "root/etc/loop").symlink_to("loop")
    host = Host(folder)
    assert host.text("/etc/absolute") == "inside"
    assert host.text("/etc/upward") == "inside"
    assert host.text("/etc/escape") is None
    assert host.text("/../../secret") is None
    assert host.text("/etc/loop") is None
    assert not host.exists("/etc/loop")


def test_glob_names_paths_as_the_board_does(folder: Path) -> None:
    for name in ("hwmon0", "hwmon1", "other"):
        (folder / "root/sys/class" / name).mkdir(parents=True)
        (folder / "root/sys/class" / name / "name").write_text(name)
    (folder / "root/sys/linked").symlink_to("/sys/class")
    host = Host(folder)
    assert host.glob("/sys/class/hwmon*/name") == ["/sys/class/hwmon0/name", "/sys/class/hwmon1/name"]
    assert host.glob("/sys/linked/hwmon*/name") == ["/sys/linked/hwmon0/name", "/sys/linked/hwmon1/name"]
    assert host.glob("/nowhere/*") == []


def test_programs_of_the_replaying_machine_are_not_the_boards(folder: Path) -> None:
    host = Host(folder)
    assert host.run("uname", "-m") is None
    assert not host.has_program("ls")
    assert Host(folder / "root").run("uname", "-m") is None


def test_runs_a_recorded_program(folder: Path) -> None:
    program(folder, "tool", 'cat; echo "out $1 $LC_ALL $ORINSPECT_BOARD_ROOT"; echo err >&2; exit 3')
    answer = Host(folder).run("tool", "argument")
    assert answer is not None
    assert (answer.code, answer.out, answer.err) == (3, f"out argument C {folder / 'root'}\n", "err\n")


def test_a_program_that_hangs_is_killed_with_its_children(folder: Path) -> None:
    program(folder, "slow", "echo begun; sleep 60 & sleep 60")
    start = time.monotonic()
    answer = Host(folder).run("slow", timeout_s=0.3)
    assert time.monotonic() - start < 10
    assert answer is not None
    assert (answer.code, answer.out) == (TIMED_OUT, "begun\n")
    assert "no answer in 0.3 s" in answer.err


def test_a_program_that_cannot_start(folder: Path) -> None:
    file = folder / "bin/broken"
    file.write_bytes(b"\x7fELF nonsense")
    file.chmod(0o755)
    answer = Host(folder).run("broken")
    assert answer is not None
    assert answer.code == 126


def test_root_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        Host(tmp_path / "none")
    assert Host("/").is_live
    assert Host("/").run("uname", "-m") is not None
