"""The commands `orinspect watch` and `orinspect status`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from orinspect_edge_runtime.options import PATH, json_option


@click.command()
@click.argument("config", type=PATH)
@click.option(
    "--log", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form of the log on stderr."
)
def watch(config: Path, log: str) -> None:
    """Judge what a camera or a folder shows until told to stop; verdicts go to the journal and other sinks.

    \b
    Example:  orinspect watch line-1.toml
    SIGTERM ends it within two seconds, SIGHUP reads the recipe and the rules again. docs/watch.md has every key.
    """
    from orinspect_edge_runtime.watch.config import read_config
    from orinspect_edge_runtime.watch.log import begin_log
    from orinspect_edge_runtime.watch.loop import Watch

    begin_log(log)
    Watch(config, read_config(config)).run()


@click.command()
@click.argument("config", type=PATH)
@json_option
def status(config: Path, as_json: bool) -> None:
    """Say how a running watch is: frames, verdicts, latency, sinks.

    \b
    Example:  orinspect status line-1.toml
    Exit code 1: nothing was told for ten seconds, so it does not run or hangs.
    """
    import time

    from orinspect_edge_runtime.errors import CheckFailed, InputError
    from orinspect_edge_runtime.watch.config import read_config

    file = Path(read_config(config).status)
    try:
        told = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: no status there ({error}); start  orinspect watch {config}") from error
    click.echo(json.dumps(told, indent=2) if as_json else "\n".join(status_lines(told)))
    age_s = time.time() - told["told_at"]
    if age_s > 10:
        raise CheckFailed(f"the last sign is {age_s:.0f} s old: the watch does not run, or hangs")


def status_lines(told: dict[str, Any]) -> list[str]:
    """The status for people: one line a fact, times as local ones."""
    from datetime import datetime

    times = {key: datetime.fromtimestamp(told[key]).isoformat(" ", "seconds") for key in ("began_at", "told_at")}
    return [f"{key:15} {_in_words(value)}" for key, value in (told | times).items()]


def _in_words(value: Any) -> str:
    """Nested values as `name value` pairs; a dash for nothing."""
    if isinstance(value, dict):
        between = "; " if any(isinstance(one, dict) for one in value.values()) else ", "
        return between.join(f"{key} {_in_words(one)}" for key, one in value.items()) or "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value in (None, "", []) else str(value)
