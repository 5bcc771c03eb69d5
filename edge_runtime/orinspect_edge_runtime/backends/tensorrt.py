"""TensorRT: an engine built on this very device, run with nothing allocated and, on a Jetson, nothing copied per frame.

Frames go into pinned memory that the GPU reads, scores come out of pinned memory that the GPU writes; the memory bank
stays in device memory. Two slots let the CPU prepare frame n + 1 while the GPU works on frame n. Not yet run on
hardware.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.backends import Arrays
from orinspect_edge_runtime.backends.cuda_memory import CudaError, CudaMemory, open_memory
from orinspect_edge_runtime.backends.engine_slot import Resident, Slot
from orinspect_edge_runtime.backends.recipe_inputs import FRAMES, check_inputs, check_ranges
from orinspect_edge_runtime.closing import Closing
from orinspect_edge_runtime.device import Device, this_device, with_library
from orinspect_edge_runtime.engine import Engine, checked_engine
from orinspect_edge_runtime.errors import BundleError, CheckFailed, InputError, RecipeError
from orinspect_edge_runtime.manifest import GraphSpec
from orinspect_edge_runtime.passport import build_command

SLOTS = 2
ALL_OUTPUTS = ("score", "anomaly_map", "embedding", "patches")


def import_tensorrt() -> Any:
    """The TensorRT module. Raises InputError telling where it comes from."""
    try:
        import tensorrt
    except ImportError as error:
        raise InputError(
            f"TensorRT's Python module cannot be used ({error}): on a Jetson run  sudo apt install "
            "python3-libnvinfer  and make the venv with --system-site-packages"
        ) from error
    return tensorrt


def open_engine(bundle: Path, spec: GraphSpec, onnx_sha256: str, here: Device | None = None) -> TensorRTBackend:
    """Open the bundle's engine of one graph, after its passport was checked. here: None to find out.

    Raises CheckFailed naming what differs, InputError when there is no engine, no TensorRT or no GPU.
    """
    trt = import_tensorrt()
    engine = checked_engine(bundle, spec, onnx_sha256, with_library(here or this_device(), trt))
    if engine is None:
        raise InputError(f"{bundle} has no {spec.precision} {spec.head} engine: run  orinspect build {bundle}")
    return TensorRTBackend(engine, spec, trt=trt)


class TensorRTBackend(Closing):
    """An engine ready to run. Use it from any thread, one call at a time; not in a process forked after opening it.

    outputs: the ones that `run` returns (all are computed). memory: which CUDA library, None for the first installed.
    """

    def __init__(
        self,
        engine: Engine,
        spec: GraphSpec,
        *,
        trt: Any = None,
        memory: str | None = None,
        outputs: Sequence[str] = ALL_OUTPUTS,
        cuda_graphs: bool = True,
    ) -> None:
        self._trt = trt or import_tensorrt()
        kind = with_library(Device(), self._trt).library
        if engine.passport.kind != kind:
            raise CheckFailed(f"a {engine.passport.kind} cannot be run by {kind}: build the engine again")
        self._passport, self._spec = engine.passport, spec
        self._batch = engine.passport.profile.get("batch", (1, 1, 1))[2]
        self.concurrency = 1
        self._lock, self._pid, self._is_open = threading.RLock(), os.getpid(), True
        self._slots: list[Slot] = []
        # By slot, frames and the resident recipe.
        self._graphs: dict[tuple[int, int, int], Any] = {}
        self._warm: set[tuple[int, int, int]] = set()
        self._shape = 0
        self._errors: list[str] = []
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._memory: CudaMemory = open_memory(memory)
        self._resident = Resident(self._memory)
        self._prepared: list[Resident] = []
        self._bound: Resident | None = None
        self._captures = cuda_graphs and self._memory.can_capture
        try:
            with self._memory.entered():
                self._deserialize(engine)
                for _ in range(SLOTS):
                    self._slots.append(Slot(self._memory, spec, self._batch, outputs))
        except BaseException:
            self.close()
            raise
        graphs = ", CUDA graphs" if self._captures else ""
        where = self._passport.module_name or "GPU"
        self.description = f"TensorRT {self._trt.__version__} ({self._memory.name}{graphs}), {where}"

    def _deserialize(self, engine: Engine) -> None:
        self._runtime = self._trt.Runtime(_logger(self._trt, self._errors))
        self._runtime.engine_host_code_allowed = False
        self._engine = self._runtime.deserialize_cuda_engine(engine.plan)
        mend = f"run  {build_command(self._passport, 'BUNDLE')}  on this device"
        if self._engine is None:
            raise BundleError(f"TensorRT cannot read the engine ({self._last_error()}): {mend}")
        names = {self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)}
        promised = {tensor.name for tensor in (*self._spec.inputs, *self._spec.outputs)}
        if names != promised:
            raise BundleError(
                f"the engine's tensors are not the graph's ({', '.join(sorted(names ^ promised))}): {mend}"
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise CudaError(f"there is no memory to run the engine ({self._last_error()}): close other programs")

    def set_inputs(self, arrays: Arrays) -> None:
        """Make a recipe's arrays resident. Raises RecipeError when they do not fit the graph or the engine."""
        self._check(arrays)
        with self._entered():
            self._memory.synchronize()
            self._forget_graphs(self._resident)
            self._resident.load_all(arrays)
            self._bound = None

    def prepare(self, arrays: Arrays) -> Resident:
        """Make another recipe's arrays resident beside them: a call of `run` with it costs no copy."""
        self._check(arrays)
        with self._entered():
            resident = Resident(self._memory)
            try:
                resident.load_all(arrays)
            except BaseException:
                resident.free()
                raise
            self._prepared.append(resident)
        return resident

    def release(self, prepared: Resident) -> None:
        """Free what `prepare` made resident."""
        with self._entered():
            self._memory.synchronize()
            self._forget_graphs(prepared)
            self._prepared.remove(prepared)
            self._bound = None
            prepared.free()

    def _check(self, arrays: Arrays) -> None:
        check_inputs(arrays, self._spec.inputs)
        check_ranges(arrays, self._spec.inputs, self._passport.profile, build_command(self._passport, "BUNDLE"))

    def _bind(self, resident: Resident) -> None:
        """Let the context read a recipe's arrays."""
        if self._bound is resident:
            return
        # A call under way still reads the other recipe's.
        self._memory.synchronize()
        for name, address in resident.addresses.items():
            self._require(self._context.set_tensor_address(name, address))
            self._require(self._context.set_input_shape(name, resident.shapes[name]))
        self._bound = resident

    def run(self, frames: NDArray[np.uint8], prepared: Resident | None = None) -> dict[str, NDArray[np.float32]]:
        """Outputs by name for uint8 frames [batch, height, width, 3]; more frames than the engine takes go in parts."""
        parts = [frames[at : at + self._batch] for at in range(0, len(frames), self._batch)]
        done = [self.collect(self.submit(part, prepared)) for part in parts]
        if len(done) == 1:
            return done[0]
        return {name: np.concatenate([part[name] for part in done]) for name in done[0]}

    def run_in_parts(self, frames: NDArray[np.uint8]) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]]:
        """As `run`, for up to a batch of frames, with the seconds of `copy_in`, `engine` and `copy_out`.

        The copies are the CPU's, into and out of the slot; on a device with one memory there are no others.
        """
        with self._entered():
            begin = time.perf_counter()
            number = self._filled_slot(frames)
            filled = time.perf_counter()
            self._start(number, len(frames))
            self._memory.wait(self._slots[number].event)
            done = time.perf_counter()
            outputs = self.collect(number)
            end = time.perf_counter()
        return outputs, {"copy_in": filled - begin, "engine": done - filled, "copy_out": end - done}

    def submit(self, frames: NDArray[np.uint8], prepared: Resident | None = None) -> int:
        """Queue one call and return at once; give what this returns to `collect`. Two calls may be under way.

        prepared: the recipe to use, None for the one of `set_inputs`.

        Raises InputError: too many frames, frames of another size, or two calls are under way already.
        """
        with self._entered():
            number = self._filled_slot(frames, prepared)
            self._start(number, len(frames))
        return number

    def _filled_slot(self, frames: NDArray[np.uint8], prepared: Resident | None = None) -> int:
        """Number of a free slot, with the frames copied in and the recipe bound."""
        resident = prepared or self._resident
        if len(resident.shapes) != len(self._spec.inputs) - 1:
            raise RecipeError("the engine has no recipe yet: call set_inputs first")
        number = next((n for n, slot in enumerate(self._slots) if not slot.busy), None)
        if number is None:
            raise InputError(f"{SLOTS} calls are under way: collect one first")
        slot = self._slots[number]
        if not 1 <= len(frames) <= self._batch or frames.shape[1:] != slot.frames.shape[1:]:
            raise InputError(
                f"frames {list(frames.shape)} do not fit the engine: it takes 1 to {self._batch} of "
                f"{list(slot.frames.shape[1:])}"
            )
        self._bind(resident)
        np.copyto(slot.frames[: len(frames)], frames, casting="no")
        return number

    def _start(self, number: int, frames: int) -> None:
        slot = self._slots[number]
        self._queue(number, frames)
        self._memory.record(slot.event)
        slot.busy = frames

    def collect(self, number: int) -> dict[str, NDArray[np.float32]]:
        """Wait for a call and copy its outputs out of the slot."""
        with self._entered():
            slot = self._slots[number]
            frames, slot.busy = slot.busy, 0
            if not frames:
                raise InputError(f"call {number} is not under way: submit one first")
            self._memory.wait(slot.event)
            return {name: view[:frames].copy() for name, view in slot.outputs.items()}

    def inspect(self) -> str:
        """TensorRT's report on the engine's layers, JSON."""
        with self._entered():
            inspector = self._engine.create_engine_inspector()
            return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def _queue(self, number: int, frames: int) -> None:
        """Queue the engine, as a CUDA graph from the third call of the same slot and batch on."""
        key = (number, frames, id(self._bound))
        if key in self._graphs:
            self._memory.launch(self._graphs[key])
            return
        if not self._captures or key not in self._warm:
            self._enqueue(number, frames)
            self._warm.add(key)
            return
        self._prepare(number, frames)
        self._graphs[key] = self._memory.capture(lambda: self._enqueue(number, frames))
        self._memory.launch(self._graphs[key])

    def _prepare(self, number: int, frames: int) -> None:
        for name, address in self._slots[number].addresses.items():
            self._require(self._context.set_tensor_address(name, address))
        if self._shape != frames:
            self._require(self._context.set_input_shape(FRAMES, (frames, *self._slots[number].frames.shape[1:])))
            self._shape = frames

    def _enqueue(self, number: int, frames: int) -> None:
        self._prepare(number, frames)
        self._require(self._context.execute_async_v3(self._memory.stream))
        self._slots[number].queue_copies(frames)

    def _require(self, accepted: bool) -> None:
        if not accepted:
            raise CudaError(f"TensorRT refused a call ({self._last_error()}): close and open the engine again")

    def _last_error(self) -> str:
        return self._errors[-1].strip().splitlines()[0] if self._errors else "it gave no reason"

    def _forget_graphs(self, *residents: Resident) -> None:
        """Free the CUDA graphs that read those recipes' arrays."""
        gone = {id(resident) for resident in residents}
        self._warm = {key for key in self._warm if key[2] not in gone}
        with contextlib.ExitStack() as stack:
            for key in [key for key in self._graphs if key[2] in gone]:
                stack.callback(self._memory.free_graph, self._graphs.pop(key))

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        """One thread at a time, with the context current, in the process that opened the engine."""
        if os.getpid() != self._pid:
            raise CudaError("the engine was opened before this process was forked: open it in this process instead")
        with self._lock:
            if not self._is_open:
                raise CudaError("the engine was closed")
            with self._memory.entered():
                yield

    def close(self) -> None:
        """Free everything, in the order that CUDA needs. In a forked process nothing is touched: it is the parent's."""
        with self._lock:
            is_open, self._is_open = self._is_open, False
            if not is_open or os.getpid() != self._pid:
                return
            with contextlib.ExitStack() as last:
                last.callback(self._memory.close)
                with self._memory.entered(), contextlib.ExitStack() as stack:
                    residents = (self._resident, *self._prepared)
                    for resident in residents:
                        stack.callback(resident.free)
                    for slot in self._slots:
                        stack.callback(slot.free)
                    stack.callback(self._forget_graphs, *residents)
                    stack.callback(self._drop_engine)
                    self._memory.synchronize()

    def _drop_engine(self) -> None:
        """TensorRT's objects go while the context is current, before the memory that they point to."""
        self._context = None
        self._engine = None
        self._runtime = None


def _logger(trt: Any, errors: list[str]) -> Any:
    """A TensorRT logger that keeps the last error messages and prints nothing."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # the base class comes with the module
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                errors[:] = [*errors[-4:], msg]

    return Logger()
