"""onnxruntime runs the very files that TensorRT builds from, so accuracy is known before a board is.

On the CPU, or through its CUDA or TensorRT provider on a GPU (those two: not yet run on hardware).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.backends import Arrays
from orinspect_edge_runtime.backends.recipe_inputs import FRAMES, check_inputs
from orinspect_edge_runtime.closing import Closing
from orinspect_edge_runtime.errors import BundleError, InputError
from orinspect_edge_runtime.manifest import GraphSpec

# Backend names and the providers of onnxruntime behind them, the first one preferred.
PROVIDERS = {
    "onnxruntime": ("CPUExecutionProvider",),
    "ort-cuda": ("CUDAExecutionProvider",),
    "ort-trt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
}


@dataclass(frozen=True)
class Prepared:
    """A recipe's arrays, and the OrtValues that borrow their memory."""

    arrays: dict[str, NDArray[Any]]
    values: dict[str, Any]


class OnnxRuntimeBackend(Closing):
    """A graph in an onnxruntime session; the head's inputs stay bound as OrtValues. `run` is safe from threads.

    name: of PROVIDERS. Asked for a GPU, onnxruntime may leave no operator to the CPU. Raises InputError when it cannot
    use the GPU, BundleError when it refuses the graph on the CPU.
    """

    def __init__(
        self, graph: bytes, spec: GraphSpec, *, name: str = "onnxruntime", threads: int = 0, throughput: bool = False
    ) -> None:
        import onnxruntime

        on_cpu = name == "onnxruntime"
        self.concurrency = (threads or len(os.sched_getaffinity(0))) if throughput and on_cpu else 1
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1 if throughput else threads
        options.log_severity_level = 3 if on_cpu else 4
        if not on_cpu:
            _check_provider(name, onnxruntime)
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=list(PROVIDERS[name]), enable_fallback=0
            )
        except Exception as error:
            if not on_cpu:
                raise InputError(
                    f"--backend {name} cannot run {spec.file} on the GPU ({_first_line(error)})"
                ) from error
            raise BundleError(f"{spec.file}: onnxruntime refuses it ({_first_line(error)})") from error
        # It would keep the file's bytes, for a change of providers that nobody asks for.
        self._session._model_bytes = None
        _give_back_memory()
        self._to_value = onnxruntime.OrtValue.ortvalue_from_numpy
        self._outputs = [output.name for output in spec.outputs]
        self._inputs_of_graph = spec.inputs
        self._inputs = Prepared({}, {})
        self.description = f"{name} {onnxruntime.__version__}, {self._session.get_providers()[0]}"

    def set_inputs(self, arrays: Arrays) -> None:
        """Bind a recipe's arrays. They must be exactly the graph's inputs beside `frames`."""
        self._inputs = self.prepare(arrays)

    def prepare(self, arrays: Arrays) -> Prepared:
        """Bind another recipe's arrays for calls of `run`."""
        check_inputs(arrays, self._inputs_of_graph)
        # An OrtValue made from numpy borrows the array's memory: keep the arrays alive beside it.
        kept = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
        return Prepared(kept, {name: self._to_value(array) for name, array in kept.items()})

    def release(self, prepared: Prepared) -> None:
        """Nothing to do: the arrays go with the last reference to them."""

    def run(self, frames: NDArray[np.uint8], prepared: Prepared | None = None) -> dict[str, NDArray[np.float32]]:
        """Outputs by name for uint8 frames [batch, height, width, 3]."""
        inputs = self._inputs if prepared is None else prepared
        feed = {**inputs.values, FRAMES: self._to_value(np.ascontiguousarray(frames))}
        values = self._session.run_with_ort_values(self._outputs, feed)
        return {name: value.numpy() for name, value in zip(self._outputs, values, strict=True)}

    def close(self) -> None:
        """Drop the session and the bound arrays."""
        self._inputs = Prepared({}, {})
        self._session = None


def _check_provider(name: str, onnxruntime: Any) -> None:
    wanted, has = PROVIDERS[name][0], onnxruntime.get_available_providers()
    if wanted not in has:
        raise InputError(
            f"--backend {name} needs the {wanted}; this onnxruntime has {', '.join(has)}: "
            "run  pip uninstall onnxruntime  and  pip install onnxruntime-gpu"
        )


def _give_back_memory() -> None:
    """Give back to the system what reading the graph has freed: glibc keeps it, some 25 MB of a ResNet-18."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
