"""The buffers of one call in flight, and the resident inputs that all calls share. Allocated once, never per frame."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.backends.cuda_memory import CudaMemory, DeviceMemory, Mapped
from orinspect_edge_runtime.backends.recipe_inputs import FRAMES
from orinspect_edge_runtime.manifest import GraphSpec, TensorSpec

# Outputs read by the CPU after every frame, where it can see them; `patches` is fetched only when it is asked for.
SEEN = ("score", "anomaly_map", "embedding")


class Slot:
    """Frames in and outputs out for one call. On a device with one memory both are written and read in place."""

    def __init__(self, memory: CudaMemory, spec: GraphSpec, batch: int, wanted: Sequence[str]) -> None:
        self._memory = memory
        self._allocated: list[DeviceMemory | Mapped] = []
        self._copies: list[tuple[Mapped, DeviceMemory, int]] = []
        self.addresses: dict[str, int] = {}
        self.outputs: dict[str, NDArray[np.float32]] = {}
        self.busy = 0
        self.event: Any = None
        try:
            self.event = memory.event()
            (frames,) = (tensor for tensor in spec.inputs if tensor.name == FRAMES)
            self.frames = self._mapped(frames, batch, np.dtype(np.uint8))
            for tensor in spec.outputs:
                self._output(tensor, batch, tensor.name in wanted)
        except BaseException:
            self.free()
            raise

    def _output(self, tensor: TensorSpec, batch: int, is_wanted: bool) -> None:
        if tensor.name in SEEN:
            view = self._mapped(tensor, batch, np.dtype(np.float32))
            if is_wanted:
                self.outputs[tensor.name] = view
            return
        size = int(np.prod(_sizes(tensor, batch))) * 4
        device = self._memory.device(size)
        self._allocated.append(device)
        self.addresses[tensor.name] = device.address
        if is_wanted:
            staging = self._memory.mapped(size)
            self._allocated.append(staging)
            self._copies.append((staging, device, size // batch))
            self.outputs[tensor.name] = staging.pixels.view(np.float32).reshape(_sizes(tensor, batch))

    def _mapped(self, tensor: TensorSpec, batch: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        shape = _sizes(tensor, batch)
        mapped = self._memory.mapped(int(np.prod(shape)) * dtype.itemsize)
        self._allocated.append(mapped)
        self.addresses[tensor.name] = mapped.address
        return mapped.pixels.view(dtype).reshape(shape)

    def queue_copies(self, frames: int) -> None:
        """Queue the copies of what the CPU cannot see, for the first `frames` of the batch."""
        for staging, device, size in self._copies:
            self._memory.copy_out(staging.pixels[: size * frames], device)

    def free(self) -> None:
        """Free all buffers; inside `entered()`."""
        self.outputs, self._copies = {}, []
        self.frames = np.empty(0, np.uint8)
        event, self.event = self.event, None
        # One that CUDA refuses to free must not keep the others.
        with contextlib.ExitStack() as stack:
            while self._allocated:
                stack.callback(self._memory.free, self._allocated.pop(0))
            if event is not None:
                stack.callback(self._memory.free_event, event)


class Resident:
    """A recipe's arrays in the GPU's memory. A buffer is reused when the next recipe's array fits into it."""

    def __init__(self, memory: CudaMemory) -> None:
        self._memory = memory
        self._buffers: dict[str, DeviceMemory] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    @property
    def addresses(self) -> dict[str, int]:
        """Where each array lies on the device."""
        return {name: self._buffers[name].address for name in self.shapes}

    def load_all(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Copy a recipe's arrays in, in place of the ones before."""
        self.shapes = {}
        for name, array in arrays.items():
            self._load(name, np.ascontiguousarray(array, np.float32))

    def _load(self, name: str, content: NDArray[np.float32]) -> None:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < content.nbytes:
            if buffer is not None:
                self._memory.free(self._buffers.pop(name))
            buffer = self._buffers[name] = self._memory.device(content.nbytes)
        self._memory.copy_in(buffer, content)
        self.shapes[name] = content.shape

    def free(self) -> None:
        """Free all arrays; inside `entered()`."""
        with contextlib.ExitStack() as stack:
            while self._buffers:
                stack.callback(self._memory.free, self._buffers.popitem()[1])


def _sizes(tensor: TensorSpec, batch: int) -> tuple[int, ...]:
    return tuple(batch if isinstance(d, str) else d for d in tensor.shape)
