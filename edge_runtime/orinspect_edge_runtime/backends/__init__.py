"""Backends: what runs a graph. One table, one protocol, one choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import InputError
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


def _open_onnxruntime(graph: bytes, spec: GraphSpec, threads: int) -> Backend:
    from orinspect_edge_runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(graph, spec, threads=threads)


BACKENDS: dict[str, Callable[[bytes, GraphSpec, int], Backend]] = {"onnxruntime": _open_onnxruntime}


def open_backend(graph: bytes, spec: GraphSpec, *, name: str = "onnxruntime", threads: int = 0) -> Backend:
    """Open a graph's ONNX bytes. threads: CPU threads, 0 for all cores. Raises InputError for an unknown name."""
    if name not in BACKENDS:
        raise InputError(f"backend {name!r} is not known: use one of {', '.join(BACKENDS)}")
    return BACKENDS[name](graph, spec, threads)
