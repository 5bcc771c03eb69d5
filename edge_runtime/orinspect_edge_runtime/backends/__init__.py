"""Backends: what runs a graph. One table, one protocol, one choice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import BundleError, InputError, OrinspectError
from orinspect_edge_runtime.manifest import GraphSpec

T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]
# Graphs with this head are run behind a SearchingBackend.
SEARCHED_HEAD = "patchcore"
# Gives a graph's ONNX bytes, whenever they are wanted: nobody holds them for longer.
Read = Callable[[], bytes]


class Backend(Protocol):
    """A graph made ready to run. Use it as a context manager, or call `close()`: both free what it holds.

    description says in words what really runs (library, version, device). concurrency: calls of `run` from several
    threads that are worth having under way at once.
    """

    description: str
    concurrency: int

    def set_inputs(self, arrays: Arrays) -> None:
        """Make a recipe's arrays resident (heads.py names them). Raises RecipeError when they do not fit the graph.

        With the head `patchcore` a recipe's HOST_ARRAYS (bank_rule.py) may be among them: by what rule a bank is searched,
        and `inspected`, bool [P], the patches that matter; what is said of the others need not be right.
        """

    def prepare(self, arrays: Arrays) -> Any:
        """Make another recipe's arrays resident beside those of `set_inputs`; give what this returns to `run`."""

    def release(self, prepared: Any) -> None:
        """Free what `prepare` returned; no call may be under way with it."""

    def run(self, frames: NDArray[np.uint8], prepared: Any = None) -> dict[str, NDArray[np.float32]]:
        """Outputs by name (heads.py) for uint8 frames [batch, height, width, 3].

        prepared: the recipe to use for this call, None for the one of `set_inputs`.
        """

    def close(self) -> None:
        """Free everything; the backend cannot be used afterwards."""

    def __enter__(self: T) -> T: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True)
class Opening:
    """How to open a backend; see `open_backend`."""

    name: str = "onnxruntime"
    threads: int = 0
    throughput: bool = False
    bundle: Path | None = None
    arrays: Arrays | None = None


def _open_onnxruntime(read: Read, spec: GraphSpec, how: Opening) -> Backend:
    from orinspect_edge_runtime.backends.onnxruntime import OnnxRuntimeBackend

    if spec.head != SEARCHED_HEAD:
        return OnnxRuntimeBackend(read(), spec, name=how.name, threads=how.threads, throughput=how.throughput)
    from orinspect_edge_runtime.backends.searching import SearchingBackend, features_of, is_searched_here

    on_cpu = how.name == "onnxruntime"
    headless = on_cpu and how.arrays is not None and is_searched_here(how.arrays, spec)
    graph, shown = (_features_graph(read, spec), features_of(spec)) if headless else (read(), spec)
    inner = OnnxRuntimeBackend(graph, shown, name=how.name, threads=how.threads, throughput=how.throughput)
    return SearchingBackend(inner, spec, large_here=on_cpu, headless=headless)


def _features_graph(read: Read, spec: GraphSpec) -> bytes:
    from orinspect_edge_runtime.backends.cut_graph import cut_graph
    from orinspect_edge_runtime.backends.searching import FEATURES

    try:
        return cut_graph(read(), FEATURES)
    except ValueError as error:
        raise BundleError(f"{spec.file}: {error}; copy the bundle again") from error


def _open_tensorrt(read: Read, spec: GraphSpec, how: Opening) -> Backend:
    from orinspect_edge_runtime.backends.tensorrt import open_engine

    if how.bundle is None:
        raise InputError("an engine lies in a bundle: name the bundle's folder")
    engine = open_engine(how.bundle, spec, hashlib.sha256(read()).hexdigest())
    if spec.head != SEARCHED_HEAD:
        return engine
    from orinspect_edge_runtime.backends.searching import SearchingEngine

    return SearchingEngine(engine, spec)


def _open_auto(read: Read, spec: GraphSpec, how: Opening) -> Backend:
    """The engine when it is fit to run here, else onnxruntime; the description says why it is not the engine."""
    from orinspect_edge_runtime.engine import engine_folder

    why = "no engine was built"
    if how.bundle is not None and engine_folder(how.bundle, spec).exists():
        try:
            return _open_tensorrt(read, spec, how)
        except OrinspectError as error:
            why = str(error)
    backend = _open_onnxruntime(read, spec, replace(how, name="onnxruntime"))
    backend.description += f" ({why})"
    return backend


BACKENDS: dict[str, Callable[[Read, GraphSpec, Opening], Backend]] = {
    "auto": _open_auto,
    "tensorrt": _open_tensorrt,
    "onnxruntime": _open_onnxruntime,
    "ort-cuda": _open_onnxruntime,
    "ort-trt": _open_onnxruntime,
}


def open_backend(
    graph: bytes | Read,
    spec: GraphSpec,
    *,
    name: str = "onnxruntime",
    threads: int = 0,
    throughput: bool = False,
    bundle: Path | None = None,
    arrays: Arrays | None = None,
) -> Backend:
    """Open a graph's ONNX bytes, or what reads them when they are wanted.

    name: of BACKENDS; `auto` is TensorRT where an engine is fit to run, else onnxruntime on the CPU. threads: CPU threads,
    0 for all cores. bundle: its folder, where engines lie.

    throughput: for jobs over many images. The threads then work on an image each, called from as many threads
    (`concurrency`), instead of all on one: more images a second, but a longer wait for each.

    arrays: as of `set_inputs`, of the recipe that it is opened for, by which the graph may be cut. Other recipes run all the
    same, if not as fast as in one that was opened for them.

    Raises InputError for an unknown name; CheckFailed when an engine was asked for that must not run here.
    """
    if name not in BACKENDS:
        raise InputError(f"backend {name!r} is not known: use one of {', '.join(BACKENDS)}")
    read = (lambda: graph) if isinstance(graph, bytes) else graph
    return BACKENDS[name](read, spec, Opening(name, threads, throughput, bundle, arrays))
