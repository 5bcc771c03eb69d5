"""The unit file, what install and uninstall say and do, and systemd's own opinion of the unit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_jetson.cli import install, uninstall
from orinspect_jetson.host import Host
from orinspect_jetson.install import Service, carry_out, install_steps, quote, uninstall_steps, unit_text

COMMAND = ("/bin/sleep", "60")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A machine whose systemctl writes down what it was told."""
    (tmp_path / "root/etc/systemd/system").mkdir(parents=True)
    (tmp_path / "root/etc/group").write_text("root:x:0:\nvideo:x:44:\n")
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin/systemctl"
    tool.write_text('#!/bin/sh\necho "$*" >>"$ORINSPECT_BOARD_ROOT/log"\n[ ! -e "$ORINSPECT_BOARD_ROOT/refuse" ]\n')
    tool.chmod(0o755)
    return tmp_path


def log(folder: Path) -> list[str]:
    return (folder / "root/log").read_text().splitlines()


def test_installed_and_removed_without_a_trace(folder: Path) -> None:
    host = Host(folder)
    before = sorted(path for path in (folder / "root/etc").rglob("*"))
    carry_out(install_steps(Service("line-1", COMMAND), host), host)
    assert (folder / "root/etc/systemd/system/line-1.service").read_text() == unit_text(
        Service("line-1", COMMAND), host
    )
    carry_out(uninstall_steps("line-1", host), host)
    assert sorted(path for path in (folder / "root/etc").rglob("*")) == before
    assert log(folder) == [
        "daemon-reload",
        "enable --now line-1",
        "disable --now line-1",
        "clean --what=state line-1",
        "daemon-reload",
    ]


def test_units_of_others_are_left_alone(folder: Path) -> None:
    host = Host(folder)
    (folder / "root/etc/systemd/system/ssh.service").write_text("[Service]\n")
    with pytest.raises(InputError, match="was not written by orinspect"):
        install_steps(Service("ssh", COMMAND), host)
    with pytest.raises(InputError, match="was not written by orinspect"):
        uninstall_steps("ssh", host)
    with pytest.raises(InputError, match="nothing to uninstall"):
        uninstall_steps("none", host)


def test_a_refusal_is_told(folder: Path) -> None:
    (folder / "root/refuse").write_text("")
    host = Host(folder)
    with pytest.raises(CheckFailed, match="could not reload systemd"):
        carry_out(install_steps(Service("line-1", COMMAND), host), host)
    (folder / "bin/systemctl").unlink()
    with pytest.raises(CheckFailed, match="systemctl is not installed"):
        carry_out(install_steps(Service("line-1", COMMAND), host), host)


@pytest.mark.parametrize(
    ("name", "command", "message"),
    [
        ("../x", COMMAND, "no service name"),
        ("Line", COMMAND, "no service name"),
        ("line", (), "absolute path"),
        ("line", ("sleep", "60"), "absolute path"),
        ("line", ("/bin/sh", "-c", "a\nExecStartPre=/bin/evil"), "control character"),
    ],
)
def test_bad_services(name: str, command: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Service(name, command)


def test_watchdog_only_for_a_command_that_feeds_it(folder: Path) -> None:
    host = Host(folder)
    plain = unit_text(Service("a", COMMAND), host)
    assert "Type=exec" in plain
    assert "WatchdogSec" not in plain
    told = unit_text(Service("a", COMMAND, notify=True, watchdog_s=7, memory_max_mib=900), host)
    assert "Type=notify\n" in told
    assert "WatchdogSec=7\n" in told
    assert "MemoryMax=900M" in told
    assert "SupplementaryGroups=video\n" in told
    assert "${" not in told


def unquote(text: str) -> str:
    """What systemd makes of one quoted argument, systemd.service(5)."""
    body = text[1:-1] if text.startswith('"') else text
    for escaped, plain in (("\\\\", "\0"), ('\\"', '"'), ("%%", "%"), ("$$", "$")):
        body = body.replace(escaped, plain)
    return body.replace("\0", "\\")


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1))
def test_quoting_is_undone_by_systemd(part: str) -> None:
    assert unquote(quote(part)) == part


def test_dry_run_changes_nothing() -> None:
    result = CliRunner().invoke(install, ["--name", "orinspect-test-dry", "--", *COMMAND])
    assert result.exit_code == 0, result.output
    assert "would write /etc/systemd/system/orinspect-test-dry.service" in result.output
    assert "    ExecStart=/bin/sleep 60" in result.output
    assert "nothing was changed" in result.output
    assert not Path("/etc/systemd/system/orinspect-test-dry.service").exists()
    assert isinstance(CliRunner().invoke(uninstall, ["--name", "orinspect-test-dry"]).exception, InputError)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("notify", [False, True])
def test_systemd_accepts_the_unit(tmp_path: Path, notify: bool) -> None:
    command = ("/bin/sleep", 'a b "c" 100% $HOME \\ ;')
    file = tmp_path / "line-1.service"
    file.write_text(unit_text(Service("line-1", command, notify=notify, memory_max_mib=900), Host("/")))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    if "Failed to initialize manager" in done.stderr or "Failed to setup working directory" in done.stderr:
        pytest.skip(f"systemd-analyze does not work here: {done.stderr.strip()}")
    complaints = [line for line in done.stderr.splitlines() if "line-1" in line]
    assert (done.returncode, complaints) == (0, [])


def test_what_systemd_would_expand_is_doubled() -> None:
    assert quote("100%") == '"100%%"'
    assert quote("$HOME") == '"$$HOME"'
    assert quote('a"b\\') == '"a\\"b\\\\"'
    assert quote("/a/b-c.d") == "/a/b-c.d"
