"""What the classes of the stub do: remember the ONNX file, and play it in onnxruntime."""

from __future__ import annotations

import ctypes
import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

HEADER = b"ORINSPECT RECORDING, NOT AN ENGINE\n"
# Set by the tests: fake_cuda's cuLaunchHostFunc, so that a captured engine plays again when its graph is launched.
launch: Any = None
# Set by the tests: what the next build does instead of building.
on_build: Any = None
# Set by the tests: layer kinds that the DLA takes, and how many DLA cores there are.
dla_kinds: tuple[str, ...] = ()
dla_cores = 0
# Set by the tests: added to every output, to play an engine that computes something else.
error_of_outputs = 0.0
KEPT_TIMINGS = b"timings of "


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class ILogger:
    def __init__(self) -> None:
        pass


class IProgressMonitor:
    def __init__(self) -> None:
        pass


class _Layer:
    def __init__(self, name: str, kind: str) -> None:
        self.name, self.type = name, f"LayerType.{kind}"


class ITensor:
    def __init__(self, name: str = "", shape: tuple[int, ...] = ()) -> None:
        self.name, self.shape = name, shape


class INetworkDefinition:
    def __init__(self, flags: int = 0) -> None:
        self._onnx, self._nodes, self._inputs, self._flags = b"", [], [], flags

    @property
    def num_layers(self) -> int:
        return len(self._nodes)

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_layer(self, index: int) -> _Layer:
        return _Layer(*self._nodes[index])

    def get_input(self, index: int) -> Any:
        return self._inputs[index]


class ParserError:
    def __init__(self, text: str = "") -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


class OnnxParser:
    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._errors = network, []

    def parse(self, model: bytes, path: str | None = None) -> bool:
        try:
            session = _session(model)
        except Exception as error:
            self._errors.append(self._trt.ParserError(f"not an ONNX file: {str(error).splitlines()[0]}"))
            return False
        self._network._onnx = bytes(model)
        self._network._nodes = list(nodes_of(model))
        make = self._trt.ITensor
        self._network._inputs = [
            make(i.name, tuple(d if isinstance(d, int) else -1 for d in i.shape)) for i in session.get_inputs()
        ]
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._shapes[input] = [list(min), list(opt), list(max)]


class ITimingCache:
    def __init__(self, content: bytes = b"") -> None:
        self._content = content

    def serialize(self) -> Any:
        return self._trt.IHostMemory(self._content)


class IBuilderConfig:
    def __init__(self) -> None:
        self._profiles, self._pools, self._flags, self._cache = [], {}, set(), None
        self._flags.add("TF32")
        self._targets = {}

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._pools[pool.name] = pool_size

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag.name)

    def add_optimization_profile(self, profile: Any) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        return self._trt.ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        mine = KEPT_TIMINGS + self._trt.__version__.encode()
        if cache._content not in (b"", mine):
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache

    def can_run_on_DLA(self, layer: Any) -> bool:
        return layer.type.rpartition(".")[2] in dla_kinds

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        self._targets[index] = compute_capability.name
        return True


class Builder:
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    @property
    def num_DLA_cores(self) -> int:
        return dla_cores

    def create_network(self, flags: int = 0) -> Any:
        assert flags == 1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return self._trt.INetworkDefinition(flags)

    def create_builder_config(self) -> Any:
        return self._trt.IBuilderConfig()

    def create_optimization_profile(self) -> Any:
        return self._trt.IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        assert len(config._profiles) == 1
        if on_build is not None and on_build(self, network, config):
            return None
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Building Engine", None, 2)
            monitor.phase_start("Tactics", "Building Engine", 1)
            for step in range(2):
                assert monitor.step_complete("Building Engine", step) is True
            monitor.phase_finish("Tactics")
            monitor.phase_finish("Building Engine")
        if config._cache is not None:
            config._cache._content = KEPT_TIMINGS + self._trt.__version__.encode()
        header = {"version": self._trt.__version__, "profile": config._profiles[0]._shapes}
        header |= {"pools": config._pools, "flags": sorted(config._flags), "targets": config._targets}
        return self._trt.IHostMemory(HEADER + json.dumps(header).encode() + b"\n" + network._onnx)


class Runtime:
    def __init__(self, logger: Any) -> None:
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        if not serialized_engine.startswith(HEADER):
            return None
        header, _, onnx = serialized_engine[len(HEADER) :].partition(b"\n")
        return self._trt.ICudaEngine(json.loads(header), onnx)


class ICudaEngine:
    def __init__(self, header: dict[str, Any], onnx: bytes) -> None:
        self._header, self._session = header, _session(onnx)
        self._tensors = [*self._session.get_inputs(), *self._session.get_outputs()]

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return self._tensors[index].name

    def get_tensor_mode(self, name: str) -> Any:
        is_input = name in {i.name for i in self._session.get_inputs()}
        return self._trt.TensorIOMode.INPUT if is_input else self._trt.TensorIOMode.OUTPUT

    def create_execution_context(self) -> Any:
        return self._trt.IExecutionContext(self)

    def create_engine_inspector(self) -> Any:
        return self._trt.EngineInspector(self)


class EngineInspector:
    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def get_engine_information(self, format: Any) -> str:
        assert format == self._trt.LayerInformationFormat.JSON
        output = {"Name": "score", "Format/Datatype": "Row major linear FP32"}
        return json.dumps({"Layers": [{"Name": "recorded graph", "LayerType": "Recording", "Outputs": [output]}]})


class IExecutionContext:
    def __init__(self, engine: Any) -> None:
        self._engine, self._shapes, self._addresses, self._kept = engine, {}, {}, []

    def set_input_shape(self, name: str, shape: Any) -> bool:
        bounds = self._engine._header["profile"].get(name)
        if bounds and not all(a <= s <= b for a, s, b in zip(bounds[0], shape, bounds[2], strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        shapes, addresses = dict(self._shapes), dict(self._addresses)

        def play(_: Any) -> None:
            self._play(shapes, addresses)

        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(play)
        # A captured call plays later: keep a few callbacks, the rest has been played.
        self._kept = [*self._kept[-63:], function]
        return launch(stream_handle, function) == 0

    def _play(self, shapes: dict[str, Any], addresses: dict[str, int]) -> None:
        session = self._engine._session
        feed = {}
        for tensor in session.get_inputs():
            dtype = np.uint8 if "uint8" in tensor.type else np.float32
            feed[tensor.name] = _view(addresses[tensor.name], shapes[tensor.name], dtype)
        names = [output.name for output in session.get_outputs()]
        for name, value in zip(names, session.run(names, feed), strict=True):
            _view(addresses[name], value.shape, np.float32)[...] = value + error_of_outputs


def _view(address: int, shape: Any, dtype: Any) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_ubyte * size).from_address(address), dtype).reshape(shape)


def _session(onnx: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


_KINDS = {"Conv": "CONVOLUTION", "MatMul": "MATRIX_MULTIPLY", "AveragePool": "POOLING", "Relu": "ACTIVATION"}


def nodes_of(onnx: bytes) -> Iterator[tuple[str, str]]:
    """Name and TensorRT's kind of every node, read from the protobuf without the onnx package."""
    for graph in _fields(onnx, 7):
        for node in _fields(graph, 1):
            kind = next(_fields(node, 4)).decode()
            name = next(_fields(node, 3), b"").decode() or next(_fields(node, 2)).decode()
            yield name, _KINDS.get(kind, "ELEMENTWISE")


def _fields(message: bytes, wanted: int) -> Iterator[bytes]:
    """The length-delimited fields of one number in a protobuf message."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            _, place = _varint(message, place)
        elif wire == 2:
            size, place = _varint(message, place)
            if number == wanted:
                yield message[place : place + size]
            place += size
        else:
            place += struct.calcsize("d" if wire == 1 else "f")


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            return value, place
