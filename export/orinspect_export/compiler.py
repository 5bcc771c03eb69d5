"""Build a graph with NVIDIA's compiler on a computer without a GPU: does TensorRT's parser take it?

Uses the package tensorrt-rtx, whose ahead-of-time compiler needs no driver, for compute capability 8.6 (it does not
offer the 8.7 of Orin). It shows that the parser and the compiler take a graph, not how fast or exact it runs on a
board, and not that the older parser of TensorRT 10.3 takes it. Always in a process of its own: a malformed graph has
crashed the compiler.

    python -m orinspect_export.compiler FILE.onnx
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orinspect_edge_runtime.errors import MissingExtra

# Smallest, typical and largest value of every free dimension of a fused graph (heads.py).
RANGES = {"batch": (1, 1, 8), "bank_rows": (1, 2000, 50000), "groups": (1, 2, 8), "factor_columns": (1, 16, 256)}
LONGEST_BUILD_S = 300.0


@dataclass(frozen=True)
class CompileReport:
    """How one build went.

    layers: of the parsed network, before fusion. int8_layers: of these the convolutions and matrix products that read
    dequantised values on both sides. errors: the parser's, empty when it built.
    """

    compiler: str
    layers: int
    seconds: float
    megabytes: float
    errors: tuple[str, ...]
    int8_layers: int = 0

    @property
    def built(self) -> bool:
        """Whether an engine came out."""
        return not self.errors


def compiler_installed() -> bool:
    """Whether the package tensorrt-rtx can be imported."""
    return importlib.util.find_spec("tensorrt_rtx") is not None


def compile_report(graph: bytes, *, longest_s: float = LONGEST_BUILD_S) -> CompileReport:
    """Build the ONNX bytes in a process of its own. A refusal or a crash is a report with errors, never an exception.

    Raises MissingExtra when the compiler is not installed.
    """
    if not compiler_installed():
        raise MissingExtra("building needs NVIDIA's compiler: run  pip install tensorrt-rtx-cu13")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "graph.onnx")
        file.write_bytes(graph)
        # The child finds our packages where this process found them, installed or not.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", "orinspect_export.compiler", str(file)]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=longest_s, check=False
            )
        except subprocess.TimeoutExpired:
            return _failed(f"the build did not end within {longest_s:.0f} s")
    return _read_report(done)


def _read_report(done: subprocess.CompletedProcess[str]) -> CompileReport:
    """The child prints one line of JSON last; when it does not, its end is told instead."""
    try:
        fields = json.loads(done.stdout.splitlines()[-1])
        return CompileReport(**fields | {"errors": tuple(fields["errors"])})
    except (IndexError, ValueError, TypeError, KeyError):
        if done.returncode < 0:
            return _failed(f"the compiler crashed (signal {-done.returncode})")
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return _failed(f"the compiler ended with exit code {done.returncode}: {last}")


def _failed(error: str) -> CompileReport:
    return CompileReport("tensorrt-rtx", 0, 0.0, 0.0, (error,))


def dimension_range(name: str) -> tuple[int, int, int]:
    """Smallest, typical and largest value of a named dimension; `153+groups` is the one of groups moved by 153."""
    number, plus, rest = name.partition("+")
    if plus:
        low, typical, high = (int(number) + value for value in RANGES[rest])
        return low, typical, high
    return RANGES[name]


def build(graph: bytes) -> CompileReport:
    """Build in this process. Only for the child: what the compiler prints goes to stderr."""
    import tensorrt_rtx as trt

    start = time.perf_counter()
    logger = _logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    engine = None
    if parser.parse(graph):
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        config.add_optimization_profile(_profile(builder, network, graph))
        engine = builder.build_serialized_network(network, config)
    errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
    if engine is None and not errors:
        errors = logger.errors or ["the compiler gave no engine and no reason"]
    megabytes = 0.0 if engine is None else engine.nbytes / 1e6
    seconds = time.perf_counter() - start
    lowered = int8_layers(trt, network)
    return CompileReport(
        f"tensorrt-rtx {trt.__version__}", network.num_layers, seconds, megabytes, tuple(errors), lowered
    )


def int8_layers(trt: Any, network: Any) -> int:
    """How many convolutions and matrix products of a parsed network the compiler will find in INT8."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    maker = {layer.get_output(slot).name: layer for layer in layers for slot in range(layer.num_outputs)}

    def dequantised(layer: Any, slot: int) -> bool:
        made = maker.get(layer.get_input(slot).name)
        while made is not None and made.type == trt.LayerType.SHUFFLE:
            # The parser gives a matrix of weights the number of dimensions of what it is multiplied with.
            made = maker.get(made.get_input(0).name)
        return made is not None and made.type == trt.LayerType.DEQUANTIZE

    heavy = (trt.LayerType.CONVOLUTION, trt.LayerType.MATRIX_MULTIPLY)
    return sum(layer.type in heavy and all(dequantised(layer, slot) for slot in (0, 1)) for layer in layers)


def _logger(trt: Any) -> Any:
    """A TensorRT logger that keeps the errors and prints nothing."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # the base class comes with the module
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

    return Logger()


def _profile(builder: Any, network: Any, graph: bytes) -> Any:
    """One optimization profile over all free dimensions; their names are read from the ONNX file."""
    import onnx

    profile = builder.create_optimization_profile()
    named = {value.name: value.type.tensor_type.shape.dim for value in onnx.load_from_string(graph).graph.input}
    for index in range(network.num_inputs):
        name = network.get_input(index).name
        free = [dimension_range(d.dim_param) if d.dim_param else (d.dim_value,) * 3 for d in named[name]]
        if any(d.dim_param for d in named[name]):
            profile.set_shape(name, *(tuple(sizes[which] for sizes in free) for which in range(3)))
    return profile


def main(file: str) -> None:
    """Print the report of one file as a line of JSON."""
    sys.stdout.write(json.dumps(asdict(build(Path(file).read_bytes()))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
