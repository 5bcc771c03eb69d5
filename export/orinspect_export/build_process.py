"""Runs build_worker in a process of its own, again with less when it failed, and says in one sentence how it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_export.build_monitor import Progress
from orinspect_export.build_worker import PLAN, RESULT, write_request
from orinspect_export.builder import BuildOptions
from orinspect_export.memory_limits import Effort

LOG = "log.txt"
WORKER = "orinspect_export.build_worker"
Result = dict[str, Any]


def build_in_process(
    folder: Path,
    library: str,
    onnx: bytes,
    options: BuildOptions,
    efforts: Sequence[Effort],
    progress: Progress,
    announce: Callable[[str], object] = lambda text: None,
) -> Result:
    """Build into folder/engine.plan, with each effort in turn until one succeeds. Returns the worker's result.

    announce: told in one line of every attempt after the first. Interrupted (Ctrl-C), the worker is ended first.
    Raises CheckFailed: the graph is refused, or every attempt failed. InputError: TensorRT is missing or too old.
    """
    failures: list[str] = []
    for effort in efforts:
        if failures:
            announce(f"{failures[-1]}; trying again with {effort.words}")
        chosen = dataclasses.replace(options, effort=effort)
        result = _attempt(folder, library, onnx, chosen, progress)
        if result["kind"] == "built":
            return result | {"effort": dataclasses.asdict(effort), "attempts": len(failures) + 1}
        if result["kind"] == "graph":
            raise CheckFailed(result["message"])
        if result["kind"] == "other":
            raise InputError(result["message"])
        failures.append(f"with {effort.words} {result['message']}")
    raise CheckFailed(
        f"no engine could be built in {len(failures)} attempts ({'; '.join(failures)}): "
        "close other programs, add a swap file, or build with --level 0"
    )


def _attempt(folder: Path, library: str, onnx: bytes, options: BuildOptions, progress: Progress) -> Result:
    """One worker's life. A worker that died is a result as well."""
    for name in (PLAN, RESULT):
        (folder / name).unlink(missing_ok=True)
    write_request(folder, library, onnx, options)
    # The child finds our packages where this process found them, installed or not.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_MODULE_LOADING": "LAZY"}
    command = [sys.executable, "-m", WORKER, str(folder)]
    with (folder / LOG).open("wb") as log:
        worker = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        with _ended(worker):
            _follow(worker, progress)
            code = worker.wait()
    return _read_result(folder, code)


@contextlib.contextmanager
def _ended(worker: subprocess.Popen[str]) -> Iterator[None]:
    """Whatever happens here (Ctrl-C, a full disk), the worker and all it started end with the block."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        raise
    finally:
        if worker.stdout is not None:
            worker.stdout.close()


def _follow(worker: subprocess.Popen[str], progress: Progress) -> None:
    assert worker.stdout is not None
    for line in worker.stdout:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            step = json.loads(line)
            progress(step["phase"], step["done"], step["of"])


def _read_result(folder: Path, code: int) -> Result:
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        result = {}
    if isinstance(result, dict) and "kind" in result:
        return result
    return {"kind": "build", "message": _death(code, _last_words(folder))}


def _death(code: int, last_words: str) -> str:
    """How a worker ended that left no result."""
    if code == -signal.SIGKILL:
        return "the builder was killed, most likely by the kernel because memory ran out"
    if code < 0:
        return f"the builder crashed ({signal.Signals(-code).name}{last_words})"
    return f"the builder ended with exit code {code}{last_words}"


def _last_words(folder: Path) -> str:
    try:
        lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f": {lines[-1].strip()[:200]}" if lines else ""
