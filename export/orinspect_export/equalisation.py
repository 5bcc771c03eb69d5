"""Channels of unlike range made alike before depthwise convolutions, so that one INT8 scale suits all of them.

Cross-layer equalisation (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
arXiv 1906.04721), where it costs nothing: a depthwise convolution reads every channel by weights of its own, which have a
scale of their own. A convolution makes each channel larger by a factor, the depthwise one behind the ReLU undoes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orinspect_export.activations import Frames, activation_values
from orinspect_export.decisions import with_pasted_patches

if TYPE_CHECKING:
    import onnx

Doubles = NDArray[np.float64]
# A defect drives a channel further than good images do. What they and pasted copies reach is left so many times below the
# bound of a ReLU6, and no channel becomes more than MOST_GAIN times as large. On three image sets these two halved the
# rounding error of EfficientNet-Lite0 or left it as it was; with 1.25 and 64 one of them became three times worse.
HEADROOM, MOST_GAIN = 2.0, 8.0


@dataclass(frozen=True)
class Pair:
    """A convolution, and the depthwise ones that alone read its rectified output `between`; bound: of a ReLU6, or None."""

    first: onnx.NodeProto
    between: str
    bound: float | None
    depthwise: tuple[onnx.NodeProto, ...]


def equalise(model: onnx.ModelProto, frames: Frames) -> onnx.ModelProto:
    """A graph of the same function but for rounding. frames: uint8 [N, H, W, 3], good images."""
    import onnx

    equalised = onnx.ModelProto()
    equalised.CopyFrom(model)
    pairs = depthwise_pairs(equalised)
    if not pairs:
        return equalised
    reached = _largest(model, [pair.between for pair in pairs], np.concatenate([frames, with_pasted_patches(frames)]))
    tensors = {tensor.name: tensor for tensor in equalised.graph.initializer}
    for pair in pairs:
        factors = gains(reached[pair.between], pair.bound)
        for name in pair.first.input[1:]:
            _multiply(tensors[name], factors)
        for node in pair.depthwise:
            _multiply(tensors[node.input[1]], np.repeat(1 / factors, tensors[node.input[1]].dims[0] // len(factors)))
    return equalised


def depthwise_pairs(model: onnx.ModelProto) -> list[Pair]:
    """The pairs of a graph, in its order. Constants that other nodes read too are left alone."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}

    def own(node: onnx.NodeProto) -> bool:
        return all(name in constants and len(users[name]) == 1 for name in node.input[1:])

    found = []
    for first in graph.node:
        behind = users.get(first.output[0], [])
        if first.op_type != "Conv" or not own(first) or len(behind) != 1 or first.output[0] in outputs:
            continue
        rectified, bound = _rectifier(behind[0], constants)
        between = behind[0].output[0]
        readers = users.get(between, [])
        if (
            rectified
            and readers
            and between not in outputs
            and all(_is_depthwise(r, constants) and own(r) for r in readers)
        ):
            found.append(Pair(first, between, bound, tuple(readers)))
    return found


def gains(reached: Doubles, bound: float | None) -> Doubles:
    """Factor of every channel, from the largest value [C] that each reaches; 1 for one that is dead."""
    wanted = float(reached.max()) if bound is None else bound / HEADROOM
    factors = np.clip(wanted / np.maximum(reached, 1e-12), 1.0, MOST_GAIN)
    return np.where(reached > 0, factors, 1.0)


def _rectifier(node: onnx.NodeProto, constants: dict[str, Any]) -> tuple[bool, float | None]:
    """Whether a node is a ReLU or one with an upper bound, and that bound."""
    import onnx

    if node.op_type == "Relu":
        return True, None
    if node.op_type != "Clip" or len(node.input) < 3 or not all(name in constants for name in node.input[1:]):
        return False, None
    low, high = (float(onnx.numpy_helper.to_array(constants[name])) for name in node.input[1:])
    return low == 0 and high > 0, high


def _is_depthwise(node: onnx.NodeProto, constants: dict[str, Any]) -> bool:
    if node.op_type != "Conv" or node.input[1] not in constants:
        return False
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return bool(groups > 1 and constants[node.input[1]].dims[1] == 1)


def _largest(model: onnx.ModelProto, names: list[str], frames: Frames) -> dict[str, Doubles]:
    """The largest value that each channel of the named tensors reaches on the frames, [C]."""
    largest: dict[str, Doubles] = {}
    for values in activation_values(model, names, frames):
        for name, value in values.items():
            reached = value.max(axis=(0, 2, 3)).astype(np.float64)
            largest[name] = np.maximum(largest[name], reached) if name in largest else reached
    return largest


def _multiply(tensor: onnx.TensorProto, factors: Doubles) -> None:
    """Multiply a constant [C, ...] by the factors [C]."""
    import onnx

    values = onnx.numpy_helper.to_array(tensor)
    scaled = values * factors.reshape(-1, *[1] * (values.ndim - 1))
    tensor.CopyFrom(onnx.numpy_helper.from_array(scaled.astype(values.dtype), tensor.name))
