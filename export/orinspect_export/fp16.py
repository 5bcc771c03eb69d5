"""FP16 written into an encoder's graph: convolutions in half precision, everything that accumulates in float32.

Strongly typed engines have no precision flag, so the graph itself says where half precision is used. Kept in float32:
the cast and normalisation of the frames, pooling and normalisation layers (a sum of many half-precision numbers loses
its small ones), the pooled embedding, every head, and what is named by the caller: nodes whose values come near the
largest half-precision number. Inputs and outputs keep their types.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from orinspect_edge_runtime.errors import InputError
from orinspect_export.activation_statistics import LARGEST_HALF
from orinspect_export.qdq import drop_unused

if TYPE_CHECKING:
    import onnx

HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Never in half precision, wherever they stand: reductions, and operators with float32 arguments by definition.
KEPT = frozenset(
    {
        "DequantizeLinear",
        "Exp",
        "GlobalAveragePool",
        "AveragePool",
        "InstanceNormalization",
        "LayerNormalization",
        "Log",
    }
    | {"Pow", "QuantizeLinear", "ReduceL2", "ReduceMean", "ReduceSum", "Resize", "Softmax", "Sqrt"}
)
# Operators that only select or move values: after the last convolution they lose nothing in half precision.
EXACT = frozenset({"Clip", "Concat", "Flatten", "Identity", "MaxPool", "Relu", "Reshape", "Slice", "Transpose"})


def to_fp16(model: onnx.ModelProto, kept: Collection[str] = ()) -> onnx.ModelProto:
    """The encoder's graph with its trunk in half precision; the input model is left as it is.

    kept: names of nodes that stay in float32. Raises InputError when a weight does not fit into half precision.
    """
    return _halved(model, half_nodes(model, kept))


def to_fp16_beside_int8(model: onnx.ModelProto, kept: Collection[str] = ()) -> onnx.ModelProto:
    """A graph with Q/DQ pairs whose other layers work in half precision. Arguments and errors as of `to_fp16`.

    What stands between an INT8 layer and the next Q stays in float32: a cast there would keep TensorRT from fusing them.
    """
    return _halved(model, _half_beside_int8(model, kept))


def _halved(model: onnx.ModelProto, half: set[int]) -> onnx.ModelProto:
    import onnx

    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    graph = converted.graph
    weights = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    made = {name for node in graph.node for name in node.output}
    made_half = {name for index in half for name in graph.node[index].output}
    nodes: list[onnx.NodeProto] = []
    copied: set[str] = set()
    for index, node in enumerate(graph.node):
        unfit = (weights | made) - made_half if index in half else made_half
        for slot, name in enumerate(node.input):
            if name not in unfit:
                continue
            copy = f"{name}_fp16" if index in half else f"{name}_fp32"
            if name not in weights and copy not in copied:
                nodes.append(_cast(name, copy, to_half=index in half))
            copied.add(copy)
            node.input[slot] = copy
        nodes.append(node)
    _restore_outputs(graph, nodes, made_half)
    del graph.node[:]
    graph.node.extend(nodes)
    _halve_weights(graph, weights, copied)
    onnx.checker.check_model(converted, full_check=True)
    return converted


def half_layers(model: onnx.ModelProto, kept: Collection[str] = ()) -> list[str]:
    """Names of the convolutions and matrix products that work in half precision."""
    return [
        model.graph.node[index].name
        for index in sorted(half_nodes(model, kept))
        if model.graph.node[index].op_type in HEAVY
    ]


def half_nodes(model: onnx.ModelProto, kept: Collection[str] = ()) -> set[int]:
    """Indices of the nodes that work in half precision: from the first convolution to the last, and what only moves
    their results."""
    nodes = model.graph.node
    leads_to_heavy = leading_to_heavy(model)
    behind: set[str] = set()
    halved: set[str] = set()
    half: set[int] = set()
    for index, node in enumerate(nodes):
        after = node.op_type in HEAVY or any(name in behind for name in node.input)
        if after:
            behind.update(node.output)
        fed_by_half = any(name in halved for name in node.input)
        between = after and index in leads_to_heavy
        moved = fed_by_half and node.op_type in EXACT
        lowered = node.op_type in HEAVY or between or moved
        if lowered and node.op_type not in KEPT and node.name not in kept:
            half.add(index)
            halved.update(node.output)
    return half


def _half_beside_int8(model: onnx.ModelProto, kept: Collection[str]) -> set[int]:
    """Indices of the layers that read no INT8, and of what reads nothing but their results on the way to a layer."""
    nodes = model.graph.node
    maker = {name: node.op_type for node in nodes for name in node.output}
    leads_to_heavy = leading_to_heavy(model)
    halved: set[str] = set()
    half: set[int] = set()
    for index, node in enumerate(nodes):
        made = [name for name in node.input if name in maker]
        float_layer = node.op_type in HEAVY and all(maker[name] != "DequantizeLinear" for name in made)
        on_the_way = index in leads_to_heavy or node.op_type in EXACT
        follows = bool(made) and halved.issuperset(made) and node.op_type not in HEAVY and on_the_way
        if (float_layer or follows) and node.op_type not in KEPT and node.name not in kept:
            half.add(index)
            halved.update(node.output)
    return half


def leading_to_heavy(model: onnx.ModelProto) -> set[int]:
    """Indices of the nodes whose results reach a convolution or matrix product."""
    needed: set[str] = set()
    leading: set[int] = set()
    for index in range(len(model.graph.node) - 1, -1, -1):
        node = model.graph.node[index]
        if any(name in needed for name in node.output):
            leading.add(index)
        if index in leading or node.op_type in HEAVY:
            needed.update(node.input)
    return leading


def _cast(name: str, copy: str, *, to_half: bool) -> onnx.NodeProto:
    import onnx

    kind = onnx.TensorProto.FLOAT16 if to_half else onnx.TensorProto.FLOAT
    return onnx.helper.make_node("Cast", [name], [copy], name=f"cast/{copy}", to=kind)


def _restore_outputs(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], made_half: set[str]) -> None:
    """Give the graph's outputs that are now in half precision back their float32 type, under their own names."""
    for output in graph.output:
        if output.name not in made_half:
            continue
        inner = f"{output.name}_half"
        for node in nodes:
            for names in (node.input, node.output):
                names[:] = [inner if name == output.name else name for name in names]
        nodes.append(_cast(inner, output.name, to_half=False))


def _halve_weights(graph: onnx.GraphProto, weights: set[str], wanted: set[str]) -> None:
    """Add the half-precision copies of weights that were asked for; originals that nobody reads any more go."""
    import onnx

    for tensor in list(graph.initializer):
        copy = f"{tensor.name}_fp16"
        if tensor.name in weights and copy in wanted:
            graph.initializer.append(onnx.numpy_helper.from_array(_half(tensor), copy))
    drop_unused(graph)


def _half(tensor: onnx.TensorProto) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    import onnx

    values = np.asarray(onnx.numpy_helper.to_array(tensor))
    if not np.abs(values).max(initial=0.0) <= LARGEST_HALF:
        raise InputError(f"the weight {tensor.name!r} is too large for fp16 (over 65504): export without fp16")
    return values.astype(np.float16)
