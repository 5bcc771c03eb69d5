"""The `orinspect` command: finds the subcommands of every installed package and turns errors into one line.

Packages bring their commands through the entry-point group `orinspect.commands`, so this package imports none of them.
"""

from __future__ import annotations

import io
import os
import sys
from importlib.metadata import EntryPoint, entry_points, version
from typing import NoReturn

import click

from orinspect_edge_runtime.errors import InputError, MissingExtra, OrinspectError

COMMAND_GROUP = "orinspect.commands"
# The journey's order; commands not named here follow alphabetically.
JOURNEY = (
    "demo",
    "pretrain",
    "probe",
    "export",
    "build",
    "fit",
    "recipe",
    "score",
    "embed",
    "evaluate",
    "check",
    "bench",
    "watch",
    "status",
    "info",
    "doctor",
    "power",
)


class Commands(click.Group):
    """A click group whose commands are loaded from entry points only when they are called or listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all installed commands, the journey's first."""
        names = {point.name for point in entry_points(group=COMMAND_GROUP)}
        return [n for n in JOURNEY if n in names] + sorted(names.difference(JOURNEY))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The click command of that name, or None when no package brings it."""
        for point in entry_points(group=COMMAND_GROUP, name=cmd_name):
            return _load(point)
        return None


def _load(point: EntryPoint) -> click.Command:
    command = point.load()
    if not isinstance(command, click.Command):
        raise InputError(f"the command {point.name!r} of {point.value} is broken: reinstall orinspect")
    return command


@click.command(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(version("orinspect"), prog_name="orinspect")
@click.pass_context
def orinspect(ctx: click.Context) -> None:
    """Visual inspection on NVIDIA Jetson Orin: from unlabelled images to verdicts on the device.

    \b
    images --pretrain--> RUN --export--> BUNDLE --fit--> recipe --score--> verdicts
    Start with:  orinspect demo
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> NoReturn:
    """Run the command line. Exit code 0: done; 1: a check failed; 2: bad usage or input; 130: interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that the terminal's encoding lacks is shown escaped; it must not end the command.
        sys.stdout.reconfigure(errors="backslashreplace")
    # Must be set before numpy is loaded: on many small matrices OpenBLAS's threads cost far more than they bring (a
    # PaDiM fit on two busy cores took 128 CPU seconds with them, 8 without). onnxruntime has threads of its own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        code = orinspect.main(prog_name="orinspect", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Abort:
        _tell("interrupted; what was already written is whole")
        code = 130
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see  {context.command_path} --help)" if context is not None else ""
        _tell(error.format_message() + hint)
        code = error.exit_code
    except OrinspectError as error:
        _tell(str(error))
        code = error.exit_code
    except ModuleNotFoundError as error:
        missing = MissingExtra.of(error)
        if missing is None:
            raise
        _tell(str(missing))
        code = missing.exit_code
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except SystemExit as error:
        # click meets a broken pipe first: it wraps stdout and leaves with 1, our code for a failed check.
        code = 0 if hasattr(sys.stdout, "wrapped") else error.code
    except OSError as error:
        _tell(f"{error.filename or 'the system'}: {error.strerror or error}")
        code = 2
    sys.exit(code or 0)


def _tell(message: str) -> None:
    """One line on stderr, whatever the message was made of."""
    click.echo("orinspect: " + " ".join(message.split()), err=True)


if __name__ == "__main__":
    main()
