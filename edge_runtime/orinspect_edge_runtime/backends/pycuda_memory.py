"""CudaMemory on pycuda.

The primary context is used, the one that TensorRT's own CUDA runtime uses, so both see the same memory. It is retained
once a process and released when the process ends: pycuda cannot release it from another thread, and TensorRT holds it
as long anyway.
"""

from __future__ import annotations

import atexit
import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.backends.cuda_memory import (
    Bytes,
    CudaError,
    DeviceMemory,
    Mapped,
    no_cuda,
    out_of_memory,
)

# The retained primary context of this process; filled when the first engine is opened.
_primary: list[Any] = []


def _primary_context(driver: Any) -> Any:
    if not _primary:
        driver.init()
        _primary.append(driver.Device(0).retain_primary_context())
        atexit.register(_release)
    return _primary[0]


def _release() -> None:
    """Without this pycuda's destructor calls a function that the driver has dropped, and the process dies."""
    context = _primary.pop()
    # After a fork the context is the parent's: nothing of CUDA may be called here.
    with contextlib.suppress(Exception):
        context.push()
        context.detach()


class PycudaMemory:
    """Memory and a stream through pycuda. Raises CudaError when there is no usable GPU."""

    name = "pycuda"
    can_capture = False

    def __init__(self) -> None:
        try:
            with warnings.catch_warnings():
                # pycuda guesses at a version mismatch where the driver is simply missing; the error below says so.
                warnings.simplefilter("ignore")
                from pycuda import driver
        except ModuleNotFoundError:
            raise
        except ImportError as error:
            # pycuda is there, NVIDIA's driver (libcuda.so.1) is not.
            raise no_cuda("pycuda", error) from error
        self._driver = driver
        try:
            self._context = _primary_context(driver)
            with self.entered():
                self._stream = driver.Stream()
        except driver.Error as error:
            raise no_cuda("pycuda", error) from error
        self.stream = int(self._stream.handle)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Push the context, and pop it again whatever happens."""
        try:
            self._context.push()
        except self._driver.Error as error:
            raise CudaError(f"CUDA's context cannot be entered ({error}): close and open the engine again") from error
        try:
            yield
        finally:
            self._pop()

    def _pop(self) -> None:
        """Take the context off the thread's stack; once more if CUDA refuses, because pycuda aborts over a left one."""
        try:
            self._driver.Context.pop()
        except self._driver.Error:
            self._driver.Context.pop()

    def device(self, size: int) -> DeviceMemory:
        """Bytes for the GPU."""
        try:
            owner = self._driver.mem_alloc(size)
        except self._driver.Error as error:
            raise out_of_memory(size, error) from error
        return DeviceMemory(int(owner), size, owner)

    def mapped(self, size: int) -> Mapped:
        """Pinned bytes that both sides see."""
        flags = self._driver.host_alloc_flags.DEVICEMAP
        try:
            pixels = self._driver.pagelocked_empty((size,), np.uint8, mem_flags=flags)
        except self._driver.Error as error:
            raise out_of_memory(size, error) from error
        try:
            return Mapped(pixels, int(pixels.base.get_device_pointer()), pixels.base)
        except self._driver.Error as error:
            pixels.base.free()
            raise out_of_memory(size, error) from error

    def free(self, memory: DeviceMemory | Mapped) -> None:
        """Free one allocation."""
        memory.owner.free()

    def copy_in(self, memory: DeviceMemory, array: NDArray[Any]) -> None:
        """Copy to the GPU and wait."""
        with self._told("copy to the GPU"):
            self._driver.memcpy_htod(memory.address, array)

    def copy_out(self, array: Bytes, memory: DeviceMemory) -> None:
        """Queue a copy from the GPU."""
        with self._told("copy from the GPU"):
            self._driver.memcpy_dtoh_async(array, memory.address, self._stream)

    def event(self) -> Any:
        """A mark without a time stamp."""
        with self._told("make an event"):
            return self._driver.Event(self._driver.event_flags.DISABLE_TIMING)

    def record(self, event: Any) -> None:
        """Put the mark into the stream."""
        with self._told("record an event"):
            event.record(self._stream)

    def wait(self, event: Any) -> None:
        """Wait for the mark."""
        with self._told("wait for the GPU"):
            event.synchronize()

    def free_event(self, event: Any) -> None:
        """pycuda destroys an event with its last reference, which the caller drops inside `entered()`."""

    def synchronize(self) -> None:
        """Wait for the stream."""
        with self._told("wait for the GPU"):
            self._stream.synchronize()

    def capture(self, work: Callable[[], None]) -> NoReturn:
        """pycuda has no CUDA graphs."""
        raise NotImplementedError

    def launch(self, graph: Any) -> NoReturn:
        """pycuda has no CUDA graphs."""
        raise NotImplementedError

    def free_graph(self, graph: Any) -> NoReturn:
        """pycuda has no CUDA graphs."""
        raise NotImplementedError

    def close(self) -> None:
        """Destroy the stream; the context stays for the next engine."""
        with self.entered():
            del self._stream

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise CudaError(f"CUDA could not {what} ({error}): close and open the engine again") from error
