"""`orinspect demo`: the whole journey on real solar cells, as the very commands a user would type.

Each step is one command in its own process. A step whose command, inputs and code are those of its last success, and
whose result still verifies, is not run again.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import click

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import OrinspectError
from orinspect_train import solar_cells
from orinspect_train.run import load_encoder
from orinspect_train.run_folder import DROPPED

SCORER = "padim"
# Looser than the default: six layers instead of forty stay in float32, and the report shows what that changes.
BUDGET = ("--min-rank-correlation", "0.99", "--max-flips", "0.03")
FALSE_ALARM = 0.05
PRECISIONS = ("fp32", "fp16", "int8")
PACKAGES = ("orinspect_train", "orinspect_export", "orinspect_edge_runtime")


@dataclass(frozen=True)
class Step:
    """One command, and how to tell that its result is still whole."""

    name: str
    arguments: tuple[str, ...]
    is_whole: Callable[[], bool]

    @property
    def command(self) -> str:
        """What a user would type."""
        return "orinspect " + " ".join(self.arguments)


def first_step(out: Path, *, epochs: int, init: str, seed: int) -> Step:
    """The adaptation, whose own check decides which encoder the rest of the journey takes."""
    start = ("--init", init, "--seed", str(seed), "--force")
    return _pretrain("pretrain", str(out / "data/train/good"), out / "run", "--epochs", str(epochs), *start)


def other_steps(out: Path, *, init: str, seed: int) -> list[Step]:
    """The journey's other commands in order; every file lies below `out`.

    The encoder that the adaptation's check did not choose goes the same way beside the chosen one, to compare.
    """
    train, data = str(out / "data/train/good"), str(out / "data")
    bundle, other = out / "bundle", out / "other/bundle"
    dropped = out / "run" / DROPPED
    start = ("--init", str(dropped) if dropped.exists() else init, "--seed", str(seed), "--force")
    journey = [
        _pretrain("pretrain-other", train, out / "other/run", "--epochs", "0", *start),
        _export("export", out / "run", bundle, train, PRECISIONS),
        _export("export-other", out / "other/run", other, train, ("fp32",)),
    ]
    for place, precision in [(bundle, p) for p in PRECISIONS] + [(other, "fp32")]:
        name = f"cells-{precision}"
        tag = precision if place is bundle else "other"
        journey += [
            _fit(f"fit-{tag}", place, train, name, precision),
            _evaluate(f"evaluate-{tag}", place, data, name, out / "evaluation" / tag),
        ]
    embeddings, bench = out / "embeddings.npz", out / "bench.json"
    journey.append(
        Step("embed", ("embed", str(bundle), str(out / "data/test"), "--out", str(embeddings)), embeddings.exists)
    )
    measured = ("bench", str(bundle), "--head", SCORER, "--recipe", "cells-fp32", "--out", str(bench))
    journey.append(Step("bench", measured, lambda: _is_json(bench)))
    return journey


def run_demo(out: Path, *, epochs: int, init: str, seed: int) -> list[Step]:
    """Run what is not valid yet; returns all steps. Raises OrinspectError when a command fails."""
    split = solar_cells.split_cells(solar_cells.read_cells(), seed)
    solar_cells.write_dataset(split, out / "data")
    held_out = f"{len(split.good)} good and {len(split.defective)} defective cells held out"
    click.echo(f"{len(split.fit)} good cells to learn from, {held_out}")
    first = first_step(out, epochs=epochs, init=init, seed=seed)
    total = 1 + len(other_steps(out, init=init, seed=seed))
    key = _go(out, first, _code_digest(), f"1/{total}")
    others = other_steps(out, init=init, seed=seed)
    for number, step in enumerate(others, 2):
        key = _go(out, step, key, f"{number}/{total}")
    return [first, *others]


def _go(out: Path, step: Step, key: str, number: str) -> str:
    """Run a step unless its result is valid; returns the key that the next step's result depends on."""
    key = hashlib.sha256(f"{key} {step.command}".encode()).hexdigest()
    stamp = out / "steps" / f"{step.name}.json"
    click.secho(f"\n[{number}] {step.command}", bold=True)
    if _stamped(stamp) == key and step.is_whole():
        click.echo("still valid from the last run")
        return key
    stamp.unlink(missing_ok=True)
    _run(step)
    durable.write_bytes(stamp, json.dumps({"key": key, "command": step.command}).encode())
    return key


def _run(step: Step) -> None:
    done = subprocess.run([sys.executable, "-m", "orinspect_edge_runtime.cli", *step.arguments], check=False)
    if done.returncode != 0:
        raise OrinspectError(f"the demo stopped at: {step.command}  (exit code {done.returncode}, reason above)")


def _pretrain(name: str, data: str, run: Path, *options: str) -> Step:
    return Step(name, ("pretrain", data, "--out", str(run), *options), lambda: _loads(lambda: load_encoder(run)))


def _export(name: str, run: Path, bundle: Path, calibration: str, precisions: tuple[str, ...]) -> Step:
    chosen = ("--precision", ",".join(precisions), "--calibration", calibration, "--force")
    return Step(
        name, ("export", str(run), "--out", str(bundle), *chosen, *BUDGET), lambda: _loads(lambda: Bundle.open(bundle))
    )


def _fit(name: str, bundle: Path, train: str, recipe: str, precision: str) -> Step:
    options = ("--recipe", recipe, "--scorer", SCORER, "--precision", precision, "--false-alarm", str(FALSE_ALARM))
    whole: Callable[[], object] = lambda: Bundle.open(bundle).recipe(recipe)  # noqa: E731
    return Step(name, ("fit", str(bundle), train, *options), lambda: _loads(whole))


def _evaluate(name: str, bundle: Path, data: str, recipe: str, report: Path) -> Step:
    arguments = ("evaluate", str(bundle), data, "--recipe", recipe, "--report", str(report))
    return Step(name, arguments, lambda: _is_json(report / "evaluation.json"))


def _loads(load: Callable[[], object]) -> bool:
    try:
        load()
    except OrinspectError:
        return False
    return True


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _stamped(path: Path) -> str | None:
    return json.loads(path.read_bytes())["key"] if _is_json(path) else None


def _code_digest() -> str:
    """Digest of the code that makes the results: a changed line makes them all stale."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise OrinspectError(f"the package {package} is not installed; install orinspect again")
        for file in sorted(Path(spec.origin).parent.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()
