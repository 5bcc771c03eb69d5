"""The process that builds: its memory returns with its end, and a crash or the OOM killer takes only this.

    python -m orinspect_export.build_worker FOLDER

FOLDER holds request.json and graph.onnx; engine.plan and, last, result.json are written into it. Standard output is a
line of JSON a step of progress, and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import IO, Any

from orinspect_edge_runtime.errors import InputError, OrinspectError
from orinspect_edge_runtime.manifest import TensorSpec
from orinspect_export.builder import BuildFailed, BuildOptions, BuiltEngine, build_engine
from orinspect_export.memory_limits import Effort
from orinspect_export.trt_network import GraphRefused

REQUEST, GRAPH, PLAN, RESULT = "request.json", "graph.onnx", "engine.plan", "result.json"
# How the parent tells what went wrong: only a failed build is worth another attempt.
KINDS: tuple[tuple[type[OrinspectError], str], ...] = (
    (BuildFailed, "build"),
    (GraphRefused, "graph"),
    (OrinspectError, "other"),
)


def write_request(folder: Path, library: str, onnx: bytes, options: BuildOptions) -> None:
    """What `main` reads."""
    (folder / GRAPH).write_bytes(onnx)
    fields = dataclasses.asdict(options) | {"timing_cache": str(options.timing_cache or "")}
    (folder / REQUEST).write_text(json.dumps({"library": library, "options": fields}), encoding="utf-8")


def read_request(folder: Path) -> tuple[str, BuildOptions]:
    """The library's module name and the options."""
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    fields = request["options"]
    fields["inputs"] = tuple(TensorSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in fields["inputs"])
    fields["ranges"] = {name: tuple(values) for name, values in fields["ranges"].items()}
    fields["effort"] = Effort(**fields["effort"])
    fields["timing_cache"] = Path(fields["timing_cache"]) if fields["timing_cache"] else None
    return request["library"], BuildOptions(**fields)


def import_library(name: str) -> Any:
    """The TensorRT module. Raises InputError telling where it comes from."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != name.partition(".")[0]:
            raise
        raise InputError(
            "TensorRT's Python module is not installed: on a Jetson run  sudo apt install python3-libnvinfer  and make "
            "the venv with --system-site-packages"
        ) from error
    except ImportError as error:
        raise InputError(f"TensorRT's Python module cannot be loaded ({error}): reinstall it") from error


def run(folder: Path, told: IO[str]) -> dict[str, Any]:
    """Build what the request says. Returns the result for the parent; what went wrong is a result as well."""

    def progress(phase: str, done: int, steps: int) -> None:
        told.write(json.dumps({"phase": phase, "done": done, "of": steps}) + "\n")
        told.flush()

    try:
        library, options = read_request(folder)
        built = build_engine(import_library(library), (folder / GRAPH).read_bytes(), options, progress)
        with (folder / PLAN).open("wb") as file:
            file.write(built.plan)
        return _result(built)
    except MemoryError:
        return {"kind": "build", "message": "memory ran out"}
    except OrinspectError as error:
        kind = next(kind for error_type, kind in KINDS if isinstance(error, error_type))
        return {"kind": kind, "message": str(error)}
    except OSError as error:
        return {"kind": "other", "message": f"{error.filename or folder}: {error.strerror}"}


def _result(built: BuiltEngine) -> dict[str, Any]:
    fields = {f.name: getattr(built, f.name) for f in dataclasses.fields(built) if f.name != "plan"}
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"kind": "built", "peak_mib": peak_mib, **fields, "ranges": dict(built.ranges)}


def _private_stdout() -> IO[str]:
    """Our standard output under a number of its own; whatever else prints (TensorRT does) goes to standard error."""
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return private


def _expendable() -> None:
    """End with the parent, and be what the OOM killer takes first rather than the desktop or sshd."""
    with contextlib.suppress(OSError, AttributeError):
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")


def main(folder: Path) -> None:
    """Build and leave result.json."""
    _expendable()
    result = run(folder, _private_stdout())
    partial = folder / f"{RESULT}.partial"
    partial.write_text(json.dumps(result), encoding="utf-8")
    partial.replace(folder / RESULT)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
