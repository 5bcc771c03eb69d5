"""Commands of the board package: info, power, doctor, record-board, install, uninstall."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from orinspect_jetson.host import Host
    from orinspect_jetson.install import Step

ROOT_HELP = "A recorded board instead of this machine: a folder with root/ and bin/ (the programs in bin/ are run)."
root_option = click.option("--root", type=click.Path(exists=True, file_okay=False), default="/", help=ROOT_HELP)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@json_option
@root_option
def info(as_json: bool, root: str) -> None:
    """Say which Jetson this is, and how sure that is.

    \b
    orinspect info
    orinspect info --json
    orinspect info --root recorded-board

    Module, Super or not, power mode, SM count, L4T, JetPack, TensorRT and CUDA, each from several places; where they
    disagree, that is printed. Needs no root. Not yet run on hardware.
    """
    from orinspect_jetson import report
    from orinspect_jetson.board import read_board
    from orinspect_jetson.host import Host

    board = read_board(Host(root))
    if as_json:
        click.echo(json.dumps(report.as_json(board), indent=2))
        return
    for label, text in report.as_lines(board):
        click.echo(f"{label:<11} {text}")
    for conflict in board.conflicts:
        click.echo(f"{'conflict':<11} {conflict}")


@click.command()
@click.option("--set", "name", metavar="MODE", help="Switch to this mode (by name) and stay in it.")
@click.option("--restore", is_flag=True, help="Put back the mode that a killed measurement left behind.")
@json_option
@root_option
def power(name: str | None, restore: bool, as_json: bool, root: str) -> None:
    """List the power modes with their real clocks, or switch by name.

    \b
    orinspect power
    sudo orinspect power --set MAXN_SUPER
    sudo orinspect power --restore

    A change that needs a reboot is refused with the command that does it. Not yet run on hardware.
    """
    from orinspect_edge_runtime.errors import InputError
    from orinspect_jetson.board import read_board
    from orinspect_jetson.host import Host
    from orinspect_jetson.power import Power, state_folder
    from orinspect_jetson.report import modes_as_json, modes_as_lines
    from orinspect_jetson.traps import warn_about

    host = Host(root)
    board = read_board(host)
    if board.power_table is None:
        raise InputError(f"no power modes are known for this machine ({board.identity.name})")
    control = Power(host, board.power_table, state_folder(host))
    if restore:
        left = control.restore_if_left()
        click.echo("nothing was left behind" if left is None else f"restored {left.mode_name}")
        return
    if name is not None:
        mode = control.mode(name)
        control.set(mode)
        click.echo(f"power mode is {mode.name}")
        for sentence in warn_about(mode, board.power_table, board.identity.gpu_max_mhz):
            click.echo(f"warning: {sentence}", err=True)
        return
    if as_json:
        click.echo(json.dumps(modes_as_json(board), indent=2))
        return
    for line in modes_as_lines(board):
        click.echo(line)


@click.command()
@json_option
@root_option
def doctor(as_json: bool, root: str) -> None:
    """Say what keeps this board from working well, each with the command that mends it.

    \b
    orinspect doctor
    orinspect doctor --json

    Exit code 1 when something will not work. Changes nothing. Not yet run on hardware.
    """
    import dataclasses

    from orinspect_edge_runtime.errors import CheckFailed
    from orinspect_jetson.board import read_board
    from orinspect_jetson.doctor import PROBLEM, examine, is_ready
    from orinspect_jetson.host import Host

    host = Host(root)
    board = read_board(host)
    findings = examine(host, board)
    if as_json:
        rows = [dataclasses.asdict(finding) for finding in findings]
        click.echo(json.dumps({"schema_version": 1, "board": board.identity.name, "findings": rows}, indent=2))
    else:
        for finding in findings:
            click.echo(f"{finding.level:<8} {finding.what}\n         mend: {finding.mend}")
        if not findings:
            click.echo(f"{board.identity.name}: nothing to mend")
    if not is_ready(findings):
        count = sum(finding.level == PROBLEM for finding in findings)
        raise CheckFailed(f"{count} problem(s) to mend first")


@click.command("record-board")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace OUT.")
@root_option
def record_board(out: Path, force: bool, root: str) -> None:
    """Copy what orinspect reads of this board into the folder OUT: for a bug report, or a test.

    \b
    orinspect record-board my-board
    orinspect info --root my-board

    No serial numbers, addresses or names are copied. Not yet run on hardware.
    """
    from orinspect_jetson.host import Host
    from orinspect_jetson.record import record_board as record

    recorded = record(Host(root), out, force=force)
    click.echo(f"{out}: {len(recorded)} files and commands recorded; look through it before you send it to anybody")


@click.command()
@click.argument("command", nargs=-1, required=True)
@click.option("--name", default="orinspect", show_default=True, help="Name of the service.")
@click.option("--notify", is_flag=True, help="The command speaks sd_notify: Type=notify and a watchdog.")
@click.option("--watchdog", "watchdog_s", default=30, show_default=True, help="With --notify: seconds without a sign.")
@click.option("--memory-max", "memory_max_mib", default=0, help="Kill the service above so many MiB (0: no limit).")
@click.option("--yes", is_flag=True, help="Do it. Without this option it is only printed.")
def install(command: tuple[str, ...], name: str, yes: bool, **options: Any) -> None:
    """Run COMMAND as a systemd service, at every boot. Prints what it would do; --yes does it.

    \b
    orinspect install --name line-1 -- /opt/inspect/bin/python /opt/inspect/line.py
    sudo orinspect install --name line-1 --yes -- /opt/inspect/bin/python /opt/inspect/line.py

    Not yet run on hardware.
    """
    from orinspect_jetson.host import Host
    from orinspect_jetson.install import Service, install_steps

    service = Service(name, command, **options)
    host = Host("/")
    _print_or_do(install_steps(service, host), host, yes)


@click.command()
@click.option("--name", default="orinspect", show_default=True, help="Name of the service.")
@click.option("--yes", is_flag=True, help="Do it. Without this option it is only printed.")
def uninstall(name: str, yes: bool) -> None:
    """Remove a service that `install` made, and its state folder. Prints what it would do; --yes does it.

    \b
    orinspect uninstall --name line-1
    sudo orinspect uninstall --name line-1 --yes
    """
    from orinspect_jetson.host import Host
    from orinspect_jetson.install import uninstall_steps

    host = Host("/")
    _print_or_do(uninstall_steps(name, host), host, yes)


def _print_or_do(steps: list[Step], host: Host, yes: bool) -> None:
    from orinspect_jetson.install import carry_out

    for step in steps:
        click.echo(f"{'' if yes else 'would '}{step.text}" + (f"  ({' '.join(step.command)})" if step.command else ""))
        if step.content is not None and not yes:
            click.echo("".join(f"    {line}\n" for line in step.content.splitlines()), nl=False)
    if yes:
        carry_out(steps, host)
    else:
        click.echo("nothing was changed: add --yes (as root) to do it")
