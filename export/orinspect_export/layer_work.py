"""Work of layers: what a layer costs when it stays in the higher precision, so that cheap ones are kept first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

# An Orin does about this many INT8 multiplications in the time that it moves a byte: 42 T/s beside 204 GB/s on the
# largest module, of which engines reach about half. Makes depthwise convolutions and sums as dear as they are.
MULTIPLICATIONS_PER_BYTE = 100


def layer_work(model: onnx.ModelProto, layers: Sequence[str]) -> dict[str, float]:
    """Multiplications of each layer for one frame, plus its traffic in INT8 at what that would buy in multiplications.

    layers: names of convolutions, matrix products and sums of the graph.
    """
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    sizes = {value.name: _size(value) for value in (*inferred.input, *inferred.value_info, *inferred.output)}
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    sizes |= {name: math.prod(shape) for name, shape in weights.items()}
    wanted = set(layers)
    work = {}
    for node in model.graph.node:
        if node.name in wanted:
            moved = sum(sizes.get(name, 1) for name in (*node.input[:2], node.output[0]))
            depth = _inputs_of_a_result(node.op_type, weights.get(node.input[1], []))
            work[node.name] = float(depth * sizes.get(node.output[0], 1) + MULTIPLICATIONS_PER_BYTE * moved)
    return work


def _inputs_of_a_result(operator: str, weights: list[int]) -> int:
    if operator == "Conv":
        return math.prod(weights[1:])
    return weights[0] if operator == "MatMul" and weights else 0


def _size(value: onnx.ValueInfoProto) -> int:
    """Numbers of a tensor for one frame: a free dimension is the batch."""
    return math.prod(max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim)
