"""INT8 by NVIDIA ModelOpt: its quantiser says where Q/DQ pairs stand and how far activations reach.

The graph is then made here and held to the budget like any other: of ModelOpt's own, which is of an opset that JetPack
6.1 does not read, only the placement is taken. ModelOpt pins versions of onnx and onnxruntime that are not ours, so it
runs in an environment of its own.
https://nvidia.github.io/Model-Optimizer/guides/_onnx_quantization.html
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from orinspect_edge_runtime.errors import InputError
from orinspect_export.activations import Frames
from orinspect_export.calibration import STEPS
from orinspect_export.int8 import Placement
from orinspect_export.qdq import Places, Ranges

if TYPE_CHECKING:
    import onnx

# ModelOpt's name of each of our calibrators that it has.
METHODS = {"min-max": "max", "entropy": "entropy"}
# Pairs that ModelOpt sets before other operators are taken out: normalisation, pooling and the heads' inputs lose more
# in INT8 than they gain.
OPERATORS = ("Conv", "Gemm", "MatMul", "Add")
INSTALL = "python -m venv DIR && DIR/bin/pip install 'nvidia-modelopt[onnx]', then --modelopt DIR/bin/python"


def modelopt_placement(model: onnx.ModelProto, frames: Frames, python: Path, calibrator: str = "min-max") -> Placement:
    """Where ModelOpt would set Q/DQ pairs, and the ranges that it found.

    frames: uint8 [N, H, W, 3], the calibration images. python: of an environment with nvidia-modelopt[onnx]. calibrator:
    of METHODS. Raises InputError when ModelOpt is not there or fails.
    """
    quantised = run_modelopt(model, frames, python, METHODS[calibrator]).graph
    steps = _steps(quantised)
    numbers = {node.name: index for index, node in enumerate(model.graph.node) if node.op_type in OPERATORS}
    places: Places = {}
    ranges: Ranges = {}
    for node in quantised.node:
        for slot, name in enumerate(node.input):
            if node.name in numbers and name in steps:
                index = numbers[node.name]
                places.setdefault(node.name, []).append((index, slot))
                ranges[model.graph.node[index].input[slot]] = steps[name] * STEPS
    if not places:
        raise InputError("ModelOpt quantised no layer of this encoder: export without --modelopt")
    return Placement(places, ranges)


def _steps(graph: onnx.GraphProto) -> dict[str, float]:
    """Size of an INT8 step of each activation that went through a pair, by the name of the result of its DQ."""
    import onnx

    constants = {tensor.name: tensor for tensor in graph.initializer}
    rounded = {node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    return {
        node.output[0]: float(onnx.numpy_helper.to_array(constants[node.input[1]]))
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in rounded
    }


def run_modelopt(model: onnx.ModelProto, frames: Frames, python: Path, method: str) -> onnx.ModelProto:
    """The graph with ModelOpt's Q/DQ pairs, INT8 weights and everything else in float32. Arguments, errors: see above."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="orinspect-modelopt-") as folder:
        exact, data, made = (Path(folder, name) for name in ("encoder.onnx", "frames.npy", "int8.onnx"))
        onnx.save(model, str(exact))
        np.save(data, frames)
        shape = "x".join(str(side) for side in (1, *frames.shape[1:]))
        options = {
            "--onnx_path": exact,
            "--output_path": made,
            "--calibration_data_path": data,
            "--calibration_shapes": f"{model.graph.input[0].name}:{shape}",
            "--calibration_method": method,
            "--calibration_eps": "cpu",
            "--quantize_mode": "int8",
            "--high_precision_dtype": "fp32",
        }
        given = [str(word) for option in options.items() for word in option]
        _run([str(python), "-m", "modelopt.onnx.quantization", *given, "--disable_mha_qdq", "--dq_only"])
        if not made.exists():
            raise InputError("ModelOpt ended without a graph: export without --modelopt")
        return onnx.load(str(made))


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise InputError(f"--modelopt {command[0]}: {error.strerror}; it takes a Python: {INSTALL}") from error
    if done.returncode == 0:
        return
    last = (done.stderr.strip() or done.stdout.strip() or "nothing was said").splitlines()[-1]
    if "No module named" in last:
        raise InputError(f"--modelopt {command[0]}: {last}: {INSTALL}")
    raise InputError(f"ModelOpt failed ({last}): export without --modelopt, or try another version of it")
