"""Shapes that a traced graph works out from the batch size, written down as constants.

Everything but the batch is fixed in our graphs, yet encoders ask their input for its shape, attention above all, and
the tracer writes that down. Engines run faster and build more simply when no shape is computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orinspect_export.activations import watching_session

if TYPE_CHECKING:
    import onnx

# Two batch sizes: what differs between them depends on the batch. Not 1, which every dimension broadcasts with.
BATCHES = (2, 3)
# The first pixel of each image, as begin, end and axes of a Slice.
CORNER = ([0, 0, 0], [1, 1, 1], [1, 2, 3])
Shapes = tuple[NDArray[np.int64], NDArray[np.int64]]


def fix_shapes(model: onnx.ModelProto) -> None:
    """Give every Reshape a constant shape and turn every Expand to the batch into an addition of zeros.

    In place; the graph's constants must be initializers. Nodes that nothing reads any longer stay in the graph, and so do
    shapes that are not as simple as these.
    """
    made = {name: node for node in model.graph.node for name in node.output}
    takers = [n for n in model.graph.node if n.op_type in ("Reshape", "Expand") and n.input[1] in made]
    shapes = _shapes(model, [node.output[0] for node in takers])
    for node in takers:
        if node.op_type == "Reshape":
            _fix_reshape(model, node, shapes[node.output[0]])
        else:
            _fix_expand(model, node, shapes[node.output[0]])


def _shapes(model: onnx.ModelProto, names: list[str]) -> dict[str, Shapes]:
    """The shapes of tensors at the two batch sizes."""
    if not names:
        return {}
    session = watching_session(model, names)
    frames = session.get_inputs()[0]
    runs = [session.run(names, {frames.name: np.zeros((b, *frames.shape[1:]), np.uint8)}) for b in BATCHES]
    low, high = ([np.array(value.shape, np.int64) for value in run] for run in runs)
    return dict(zip(names, zip(low, high, strict=True), strict=True))


def _fix_reshape(model: onnx.ModelProto, node: onnx.NodeProto, shapes: Shapes) -> None:
    low, high = shapes
    varies = low != high
    if varies.sum() <= 1:
        node.input[1] = _constant(model, f"{node.output[0]} shape", np.where(varies, -1, low))


def _fix_expand(model: onnx.ModelProto, node: onnx.NodeProto, shapes: Shapes) -> None:
    """Only from [1, ...] to [images, ...] with the rest as it was: a class token, say, which is a constant."""
    from onnx import numpy_helper

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    token, (low, high) = constants.get(node.input[0]), shapes
    views, rest = divmod(low[0], BATCHES[0])
    is_repeated = token is not None and token.shape == (1, *low[1:]) and (low[1:] == high[1:]).all()
    if not is_repeated or rest or high[0] != views * BATCHES[1]:
        return
    # Several views of a frame are put behind one another by the graph's first Concat.
    zeros = _zero_of_each(model, "Cast" if views == 1 else "Concat", node.output[0], len(low))
    node.op_type = "Add"
    node.input[1] = zeros


def _zero_of_each(model: onnx.ModelProto, source: str, name: str, dimensions: int) -> str:
    """Zeros [images, 1, ...]: a corner pixel, times zero, of each image that the first node of the type `source` gives.

    Pixels are always finite.
    """
    from onnx import helper

    place, images = next((i, n) for i, n in enumerate(model.graph.node) if n.op_type == source)
    begin, end, axes = (
        _constant(model, f"{name} {what}", np.array(value))
        for what, value in zip(("begin", "end", "axes"), CORNER, strict=True)
    )
    zero = _constant(model, f"{name} zero", np.zeros(1, np.float32))
    shape = _constant(model, f"{name} ones", np.array([-1] + [1] * (dimensions - 1)))
    corner, product, zeros = (f"{name} {what}" for what in ("corner", "product", "zeros"))
    nodes = [
        helper.make_node("Slice", [images.output[0], begin, end, axes], [corner], name=corner),
        helper.make_node("Mul", [corner, zero], [product], name=product),
        helper.make_node("Reshape", [product, shape], [zeros], name=zeros),
    ]
    for offset, node in enumerate(nodes):
        model.graph.node.insert(place + 1 + offset, node)
    return zeros


def _constant(model: onnx.ModelProto, name: str, value: NDArray[Any]) -> str:
    from onnx import numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name
