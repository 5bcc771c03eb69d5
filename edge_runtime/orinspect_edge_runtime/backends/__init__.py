"""Backends: what runs a graph. One table, one protocol, one choice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import InputError, OrinspectError
from orinspect_edge_runtime.manifest import GraphSpec

T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]


class Backend(Protocol):
    """A graph made ready to run. Use it as a context manager, or call `close()`: both free what it holds.

    description says in words what really runs (library, version, device).
    """

    description: str

    def set_inputs(self, arrays: Arrays) -> None:
        """Make a recipe's arrays resident (heads.py names them). Raises RecipeError when they do not fit the graph."""

    def run(self, frames: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Outputs by name (heads.py) for uint8 frames [batch, height, width, 3]."""

    def close(self) -> None:
        """Free everything; the backend cannot be used afterwards."""

    def __enter__(self: T) -> T: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def _open_onnxruntime(graph: bytes, spec: GraphSpec, threads: int, bundle: Path | None) -> Backend:
    from orinspect_edge_runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(graph, spec, threads=threads)


def _open_tensorrt(graph: bytes, spec: GraphSpec, threads: int, bundle: Path | None) -> Backend:
    from orinspect_edge_runtime.backends.tensorrt import open_engine

    if bundle is None:
        raise InputError("an engine lies in a bundle: name the bundle's folder")
    return open_engine(bundle, spec, hashlib.sha256(graph).hexdigest())


def _open_auto(graph: bytes, spec: GraphSpec, threads: int, bundle: Path | None) -> Backend:
    """The engine when it is fit to run here, else onnxruntime; the description says why it is not the engine."""
    from orinspect_edge_runtime.engine import engine_folder

    why = "no engine was built"
    if bundle is not None and engine_folder(bundle, spec).exists():
        try:
            return _open_tensorrt(graph, spec, threads, bundle)
        except OrinspectError as error:
            why = str(error)
    backend = _open_onnxruntime(graph, spec, threads, bundle)
    backend.description += f" ({why})"
    return backend


BACKENDS: dict[str, Callable[[bytes, GraphSpec, int, Path | None], Backend]] = {
    "onnxruntime": _open_onnxruntime,
    "tensorrt": _open_tensorrt,
    "auto": _open_auto,
}


def open_backend(
    graph: bytes, spec: GraphSpec, *, name: str = "onnxruntime", threads: int = 0, bundle: Path | None = None
) -> Backend:
    """Open a graph's ONNX bytes. threads: CPU threads, 0 for all cores. bundle: its folder, where engines lie.

    Raises InputError for an unknown name; CheckFailed when an engine was asked for that must not run here.
    """
    if name not in BACKENDS:
        raise InputError(f"backend {name!r} is not known: use one of {', '.join(BACKENDS)}")
    return BACKENDS[name](graph, spec, threads, bundle)
