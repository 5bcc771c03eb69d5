"""Q/DQ pairs: how a graph says in ONNX which of its tensors are INT8.

Symmetric int8 with zero points of 0, a scale per output channel for weights and per tensor for activations, biases in
float32: the form that TensorRT takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from orinspect_export.calibration import STEPS

if TYPE_CHECKING:
    import onnx

# A channel whose weights are all zero still needs a scale; any will do.
SMALLEST_SCALE = 1e-12
# The axis of a layer's weights that counts its output channels.
CHANNEL_AXIS = {"Conv": 0, "MatMul": 1}
Ranges = dict[str, float]
# (node index, input index) of the activations that a layer or sum reads in INT8, by its name.
Places = dict[str, list[tuple[int, int]]]


def weighted_layers(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions and matrix products whose weights are constants, in the graph's order."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type in CHANNEL_AXIS and node.input[1] in constants]


def residual_operands(model: onnx.ModelProto) -> Places:
    """The operands to quantise, by the name of the residual sum.

    Of two operands the one that comes straight from a convolution is left alone: TensorRT sums it before rounding. A sum
    without such an operand (those of transformers) is fused into nothing and gains nothing from INT8.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    maker = {name: node.op_type for node in model.graph.node for name in node.output}
    behind: set[str] = set()
    operands: Places = {}
    for index, node in enumerate(model.graph.node):
        if (node.op_type == "Conv" and node.input[1] in constants) or any(name in behind for name in node.input):
            behind.update(node.output)
        if node.op_type == "Add" and all(name in behind for name in node.input):
            straight = [slot for slot in (0, 1) if maker[node.input[slot]] == "Conv"]
            if straight:
                operands[node.name] = [(index, slot) for slot in (0, 1) if slot != straight[-1]]
    return operands


def quantisable(model: onnx.ModelProto) -> Places:
    """All that `quantise` can round: the weighted layers and the residual sums."""
    layers = set(weighted_layers(model))
    places: Places = {node.name: [(i, 0)] for i, node in enumerate(model.graph.node) if node.name in layers}
    return places | residual_operands(model)


def activations(model: onnx.ModelProto, places: Places) -> list[str]:
    """Names of the activations at these places."""
    return sorted({model.graph.node[index].input[slot] for found in places.values() for index, slot in found})


def quantise(model: onnx.ModelProto, ranges: Ranges, chosen: Places) -> onnx.ModelProto:
    """A copy of the graph with Q/DQ pairs at the chosen places, and around the weights of the layers among them.

    ranges: largest magnitude to represent of each activation (see `activations`). chosen: of `quantisable`.
    """
    import onnx

    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    graph = quantised.graph
    pairs: dict[str, list[onnx.NodeProto]] = {}
    for index, slot in (place for places in chosen.values() for place in places):
        name = model.graph.node[index].input[slot]
        if name not in pairs:
            pairs[name] = activation_pair(graph, name, ranges[name])
        graph.node[index].input[slot] = dequantised(name)
    layers = set(weighted_layers(model)).intersection(chosen)
    weights = {node.input[1]: CHANNEL_AXIS[node.op_type] for node in graph.node if node.name in layers}
    unpack = [weight_dequantiser(graph, name, axis) for name, axis in weights.items()]
    for node in graph.node:
        if node.name in layers:
            node.input[1] = dequantised(node.input[1])
    insert(graph, unpack, pairs)
    drop_unused(graph)
    return quantised


def dequantised(name: str) -> str:
    """Name of the copy of a tensor that went through INT8."""
    return f"{name}_dq"


def activation_pair(graph: onnx.GraphProto, name: str, largest: float) -> list[onnx.NodeProto]:
    """A Q/DQ pair for an activation; its scale and zero point become initializers of the graph."""
    import onnx

    scale, zero, whole = f"{name}_scale", f"{name}_zero", f"{name}_q"
    step = np.float32(max(largest / STEPS, SMALLEST_SCALE))
    graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(step), scale))
    graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(0, np.int8), zero))
    make = onnx.helper.make_node
    return [
        make("QuantizeLinear", [name, scale, zero], [whole], name=f"quantise/{name}"),
        make("DequantizeLinear", [whole, scale, zero], [dequantised(name)], name=f"dequantise/{name}"),
    ]


def weight_dequantiser(graph: onnx.GraphProto, name: str, axis: int) -> onnx.NodeProto:
    """A DQ node for a layer's weight, whose int8 values and scales per output channel become initializers."""
    import onnx

    values = onnx.numpy_helper.to_array(next(tensor for tensor in graph.initializer if tensor.name == name))
    others = tuple(i for i in range(values.ndim) if i != axis)
    scale = np.maximum(np.abs(values).max(axis=others) / STEPS, SMALLEST_SCALE).astype(np.float32)
    steps = np.round(values / np.expand_dims(scale, others))
    constants = {
        f"{name}_q": np.clip(steps, -STEPS, STEPS).astype(np.int8),
        f"{name}_scale": scale,
        f"{name}_zero": np.zeros(len(scale), np.int8),
    }
    graph.initializer.extend(onnx.numpy_helper.from_array(value, key) for key, value in constants.items())
    return onnx.helper.make_node(
        "DequantizeLinear", list(constants), [dequantised(name)], name=f"dequantise/{name}", axis=axis
    )


def insert(graph: onnx.GraphProto, first: list[onnx.NodeProto], pairs: dict[str, list[onnx.NodeProto]]) -> None:
    """Put each Q/DQ pair right behind the node that makes its tensor, and `first` at the start: ONNX wants an order."""
    nodes = list(first)
    for node in graph.node:
        nodes.append(node)
        for name in node.output:
            nodes += pairs.get(name, [])
    del graph.node[:]
    graph.node.extend(nodes)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the initializers that no node reads any more."""
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
