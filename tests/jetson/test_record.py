"""A recording gives the verdict of the board it was made of, and tells nobody who owns it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orinspect_jetson.board import read_board
from orinspect_jetson.host import Host
from orinspect_jetson.record import record_board
from orinspect_jetson.report import as_json

Compose = Callable[[str, str], Path]
BOARDS = [
    ("orin-nano-4gb", "35.4.1"),
    ("orin-nx-8gb-super", "39.2.0"),
    ("agx-orin-industrial", "36.4.3"),
    ("agx-thor", "38.4.0"),
    ("agx-xavier-32gb", "35.3.1"),
]


@pytest.mark.parametrize(("board", "l4t"), BOARDS)
def test_the_recording_replays(compose: Compose, tmp_path: Path, board: str, l4t: str) -> None:
    folder = compose(board, l4t)
    record_board(Host(folder), tmp_path / "out")
    assert as_json(read_board(Host(tmp_path / "out"))) == as_json(read_board(Host(folder)))


def test_no_serial_numbers(compose: Compose, tmp_path: Path) -> None:
    folder = compose("orin-nx-16gb", "36.4.3")
    secret = "1421722061767"
    for path in ("proc/device-tree/serial-number", "sys/firmware/devicetree/base/serial-number", "etc/hostname"):
        (folder / "root" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "root" / path).write_text(secret)
    (folder / "root/proc/cmdline").write_text(f"root=PARTUUID={secret} quiet mem=4G androidboot.serialno={secret}")
    record_board(Host(folder), tmp_path / "out")
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len(files) > 15
    assert not [file for file in files if secret in file.read_text(errors="replace")]
    assert (tmp_path / "out/root/proc/cmdline").read_text() == "quiet mem=4G"


def test_answers_with_quotes_and_both_streams_replay(compose: Compose, tmp_path: Path) -> None:
    folder = compose("orin-nx-16gb", "36.4.3")
    (folder / "bin/nvpmodel").write_text('#!/bin/sh\necho "it\'s 50% \\\\n \\$HOME"; echo "NVPM \'x\'" >&2; exit 3\n')
    record_board(Host(folder), tmp_path / "out")
    first, second = (Host(f).run("nvpmodel", "-q") for f in (folder, tmp_path / "out"))
    assert first == second
    other = Host(tmp_path / "out").run("nvpmodel", "-m", "0")
    assert other is not None
    assert other.code == 127


def test_this_machine_can_be_recorded(tmp_path: Path) -> None:
    record_board(Host("/"), tmp_path / "out")
    live, replayed = (as_json(read_board(Host(root))) for root in ("/", tmp_path / "out"))
    for name in ("name", "certainty", "cpus", "kernel", "ubuntu"):
        assert live[name] == replayed[name], name
    assert json.dumps(replayed)
