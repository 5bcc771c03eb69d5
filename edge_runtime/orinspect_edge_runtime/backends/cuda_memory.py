"""The few things that running an engine needs of CUDA, and the libraries that bring them: pycuda, or cuda-python.

Nothing of CUDA happens on import. A context is current only inside `entered()`: every thread may enter, one at a time
(the backend holds a lock), and leaves the thread's stack of contexts as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import InputError

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Mapped:
    """Memory that the CPU and the GPU of an integrated device both see, so nothing is copied between them.

    pixels: the CPU's view, uint8 [bytes]. address: the GPU's.
    """

    pixels: Bytes
    address: int
    owner: Any = None


@dataclass(frozen=True)
class DeviceMemory:
    """Memory for the GPU alone."""

    address: int
    size: int
    owner: Any = None


class CudaMemory(Protocol):
    """Memory and one stream of the first GPU. Everything but `entered` and `close` is called inside `entered()`.

    name: of the library. can_capture: whether `capture` works (CUDA graphs). stream: the handle that TensorRT takes.
    """

    name: str
    can_capture: bool
    stream: int

    def entered(self) -> AbstractContextManager[None]:
        """Make the context current for the block, in the calling thread."""

    def device(self, size: int) -> DeviceMemory:
        """Allocate bytes for the GPU. Raises CudaError when there are none left."""

    def mapped(self, size: int) -> Mapped:
        """Allocate pinned bytes that both sides see. Raises CudaError when there are none left."""

    def free(self, memory: DeviceMemory | Mapped) -> None:
        """Free one allocation."""

    def copy_in(self, memory: DeviceMemory, array: NDArray[Any]) -> None:
        """Copy a contiguous array to the GPU; it is there when the call returns."""

    def copy_out(self, array: Bytes, memory: DeviceMemory) -> None:
        """Queue a copy from the GPU into pinned memory; there once the work queued so far is done."""

    def event(self) -> Any:
        """A mark that can be put into the stream."""

    def record(self, event: Any) -> None:
        """Put the mark behind everything queued so far."""

    def wait(self, event: Any) -> None:
        """Wait until the stream has passed the mark."""

    def free_event(self, event: Any) -> None:
        """Free a mark."""

    def synchronize(self) -> None:
        """Wait for everything queued."""

    def capture(self, work: Callable[[], None]) -> Any:
        """Record what `work` queues on the stream as a CUDA graph."""

    def launch(self, graph: Any) -> None:
        """Queue a recorded graph."""

    def free_graph(self, graph: Any) -> None:
        """Free a recorded graph."""

    def close(self) -> None:
        """Free the stream and give the context back. Called outside of `entered()`."""


class CudaError(InputError):
    """CUDA refused a call: no memory, no device, no driver."""


def out_of_memory(size: int, error: Exception) -> CudaError:
    """The error for a failed allocation."""
    return CudaError(
        f"CUDA gave no {size / 2**20:.1f} MiB ({error}): close other programs, or use a recipe with a smaller memory bank"
    )


def no_cuda(library: str, error: Exception) -> CudaError:
    """The error for a driver or device that is not there."""
    return CudaError(f"{library} finds no usable GPU ({error}): run  orinspect info,  or use the onnxruntime backend")


def _open_pycuda() -> CudaMemory:
    from orinspect_edge_runtime.backends.pycuda_memory import PycudaMemory

    return PycudaMemory()


def _open_cuda_python() -> CudaMemory:
    from orinspect_edge_runtime.backends.cuda_python_memory import CudaPythonMemory

    return CudaPythonMemory()


# In the order of preference: pycuda is what most boards have; cuda-python adds CUDA graphs.
MEMORIES: dict[str, Callable[[], CudaMemory]] = {"pycuda": _open_pycuda, "cuda-python": _open_cuda_python}


def open_memory(name: str | None = None) -> CudaMemory:
    """Open a library by name; without a name the first that is installed.

    Raises InputError: none is installed, or the name is unknown. CudaError: there is no usable GPU.
    """
    if name is not None and name not in MEMORIES:
        raise InputError(f"CUDA library {name!r} is not known: use one of {', '.join(MEMORIES)}")
    missing: list[str] = []
    for candidate in [name] if name else MEMORIES:
        try:
            return MEMORIES[candidate]()
        except ModuleNotFoundError as error:
            missing.append(str(error.name))
    raise InputError(
        f"running an engine needs pycuda or cuda-python, and there is neither ({', '.join(missing)}): "
        "run  pip install 'orinspect[jetson]'"
    )
