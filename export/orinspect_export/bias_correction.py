"""Bias correction: rounding shifts the mean of a convolution's results, and its bias can take that shift back.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721), section
4.2, with means measured on images. Each convolution is compared with its INT8 twin on the same float32 activations, so
each corrects its own shift and not once more the one of the layers before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orinspect_export.activations import Frames, activation_values, mean_of
from orinspect_export.qdq import CHANNEL_AXIS, Ranges, activation_pair, dequantised, insert, weight_dequantiser

if TYPE_CHECKING:
    import onnx

FRAMES = 16


def add_to_biases(quantised: onnx.ModelProto, shifts: dict[str, NDArray[np.float64]]) -> None:
    """Add to the biases of the named convolutions, in place. shifts: as `mean_shifts` gives them."""
    import onnx

    graph = quantised.graph
    biases = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.name not in shifts:
            continue
        old = biases[node.input[2]] if len(node.input) > 2 else 0
        name = f"{node.output[0]}_bias"
        graph.initializer.append(onnx.numpy_helper.from_array((old + shifts[node.name]).astype(np.float32), name))
        node.input[:] = [*node.input[:2], name]


def mean_shifts(
    model: onnx.ModelProto, ranges: Ranges, chosen: list[str], frames: Frames
) -> dict[str, NDArray[np.float64]]:
    """Mean of (float32 result - INT8 result) of every chosen convolution, per output channel.

    frames: uint8 [N, H, W, 3]; sixteen are used. Matrix products have no bias of their own and are left out.
    """
    import onnx

    twins = onnx.ModelProto()
    twins.CopyFrom(model)
    graph = twins.graph
    nodes = [node for node in graph.node if node.name in chosen and node.op_type == "Conv"]
    if not nodes:
        return {}
    pairs = {name: activation_pair(graph, name, ranges[name]) for name in dict.fromkeys(n.input[0] for n in nodes)}
    axis = CHANNEL_AXIS["Conv"]
    unpack = [weight_dequantiser(graph, name, axis) for name in dict.fromkeys(n.input[1] for n in nodes)]
    insert(graph, unpack, pairs)
    outputs = {f"{node.name}_shift": node.name for node in nodes}
    for node in nodes:
        graph.node.extend(_twin(node))
    means = mean_of(activation_values(twins, list(outputs), frames[:FRAMES]))
    return {outputs[name]: mean for name, mean in means.items()}


def _twin(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The INT8 copy of a convolution beside it, and the mean difference of their results."""
    import onnx

    made = node.output[0]
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    twin.name = f"{node.name}_twin"
    twin.input[0], twin.input[1] = dequantised(node.input[0]), dequantised(node.input[1])
    twin.output[0] = f"{made}_twin"
    make = onnx.helper.make_node
    difference = make("Sub", [made, twin.output[0]], [f"{made}_difference"])
    mean = make("ReduceMean", [f"{made}_difference"], [f"{node.name}_shift"], axes=[0, 2, 3], keepdims=0)
    return [twin, difference, mean]
