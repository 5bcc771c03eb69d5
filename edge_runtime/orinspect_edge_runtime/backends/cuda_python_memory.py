"""CudaMemory on NVIDIA's cuda-python (package cuda-bindings), with CUDA graphs."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

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

_HOST_ALLOC_DEVICEMAP = 0x02
_STREAM_NON_BLOCKING = 0x01
_EVENT_DISABLE_TIMING = 0x02


class CudaPythonMemory:
    """Memory and a stream through cuda-python. Raises CudaError when there is no usable GPU."""

    name = "cuda-python"
    can_capture = True

    def __init__(self) -> None:
        from cuda.bindings import driver

        self._driver = driver
        try:
            self._call("cuInit", 0)
            (self._device,) = self._call("cuDeviceGet", 0)
            (self._context,) = self._call("cuDevicePrimaryCtxRetain", self._device)
        except (CudaError, RuntimeError) as error:
            raise no_cuda("cuda-python", error) from error
        try:
            with self.entered():
                (self._stream,) = self._call("cuStreamCreate", _STREAM_NON_BLOCKING)
        except CudaError:
            self._driver.cuDevicePrimaryCtxRelease(self._device)
            raise
        self.stream = int(self._stream)

    def _call(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """Call the driver. Raises CudaError when it refuses."""
        code, *results = getattr(self._driver, name)(*arguments)
        if int(code) != 0:
            raise CudaError(f"CUDA refused {name}: {code.name}; close and open the engine again")
        return tuple(results)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Push the context, and pop it again whatever happens."""
        # Both are tried twice: an engine that cannot be entered cannot be freed, and a context that stays on the stack
        # is in the way of whatever this thread does next.
        if int(self._driver.cuCtxPushCurrent(self._context)[0]) != 0:
            self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            if int(self._driver.cuCtxPopCurrent()[0]) != 0:
                self._driver.cuCtxPopCurrent()

    def device(self, size: int) -> DeviceMemory:
        """Bytes for the GPU."""
        try:
            (address,) = self._call("cuMemAlloc", size)
        except CudaError as error:
            raise out_of_memory(size, error) from error
        return DeviceMemory(int(address), size)

    def mapped(self, size: int) -> Mapped:
        """Pinned bytes that both sides see."""
        try:
            (host,) = self._call("cuMemHostAlloc", size, _HOST_ALLOC_DEVICEMAP)
        except CudaError as error:
            raise out_of_memory(size, error) from error
        try:
            (address,) = self._call("cuMemHostGetDevicePointer", host, 0)
        except CudaError as error:
            self._driver.cuMemFreeHost(host)
            raise out_of_memory(size, error) from error
        pixels = np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(int(host)))
        return Mapped(pixels, int(address), host)

    def free(self, memory: DeviceMemory | Mapped) -> None:
        """Free one allocation."""
        if isinstance(memory, Mapped):
            self._call("cuMemFreeHost", memory.owner)
        else:
            self._call("cuMemFree", memory.address)

    def copy_in(self, memory: DeviceMemory, array: NDArray[Any]) -> None:
        """Copy to the GPU and wait."""
        self._call("cuMemcpyHtoD", memory.address, array.ctypes.data, array.nbytes)

    def copy_out(self, array: Bytes, memory: DeviceMemory) -> None:
        """Queue a copy from the GPU."""
        self._call("cuMemcpyDtoHAsync", array.ctypes.data, memory.address, array.nbytes, self._stream)

    def event(self) -> Any:
        """A mark without a time stamp."""
        (event,) = self._call("cuEventCreate", _EVENT_DISABLE_TIMING)
        return event

    def record(self, event: Any) -> None:
        """Put the mark into the stream."""
        self._call("cuEventRecord", event, self._stream)

    def wait(self, event: Any) -> None:
        """Wait for the mark."""
        self._call("cuEventSynchronize", event)

    def free_event(self, event: Any) -> None:
        """Destroy a mark."""
        self._call("cuEventDestroy", event)

    def synchronize(self) -> None:
        """Wait for the stream."""
        self._call("cuStreamSynchronize", self._stream)

    def capture(self, work: Callable[[], None]) -> Any:
        """Record what `work` queues on the stream as a graph that can be launched."""
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", self._stream, mode)
        try:
            work()
        except BaseException:
            _, abandoned = self._driver.cuStreamEndCapture(self._stream)
            if int(abandoned or 0):
                self._driver.cuGraphDestroy(abandoned)
            raise
        (graph,) = self._call("cuStreamEndCapture", self._stream)
        try:
            (executable,) = self._call("cuGraphInstantiate", graph, 0)
        finally:
            self._driver.cuGraphDestroy(graph)
        return executable

    def launch(self, graph: Any) -> None:
        """Queue a recorded graph."""
        self._call("cuGraphLaunch", graph, self._stream)

    def free_graph(self, graph: Any) -> None:
        """Free a recorded graph."""
        self._call("cuGraphExecDestroy", graph)

    def close(self) -> None:
        """Destroy the stream and release the context."""
        try:
            with self.entered():
                self._driver.cuStreamDestroy(self._stream)
        finally:
            self._driver.cuDevicePrimaryCtxRelease(self._device)
