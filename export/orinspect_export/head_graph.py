"""The heads as ONNX operators, attached to an encoder's graph. heads.py defines what they compute and what they take.

Written in ONNX's own text form: the operators here are exactly the ones in the file, and all of them work in float32
whatever the precision of the encoder in front.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.heads import DISTANCES, axis_filter, head_inputs
from orinspect_edge_runtime.manifest import EncoderSpec, GraphSpec, TensorSpec
from orinspect_edge_runtime.preprocess import PreprocessSpec

if TYPE_CHECKING:
    import onnx

Floats = NDArray[np.float32]

# onehot [B, G]: 1 for the group of the largest logit (for all of them when several are exactly equal).
_GROUP = """
head_emb = Sub(embedding, group_mean)
head_product = MatMul(head_emb, group_projection)
head_logits = Add(head_product, group_bias)
head_largest = ReduceMax <axes = [1], keepdims = 1> (head_logits)
head_equal = GreaterOrEqual(head_logits, head_largest)
head_onehot = Cast <to = 1> (head_equal)
head_ones = ReduceMax <axes = [1], keepdims = 1> (head_onehot)
"""

# The row of ones comes from onehot, and the sum with zeros repeats it for every patch, so no shape is computed.
_PATCHCORE = """
head_centred = Sub(patches, patch_mean)
head_z = MatMul(head_centred, patch_projection)
head_twice = Add(head_z, head_z)
head_tail = Concat <axis = 1> (head_ones, head_onehot)
head_tail_row = Unsqueeze(head_tail, head_axis_1)
head_tails = Add(head_tail_row, head_zero_column)
head_query = Concat <axis = 2> (head_twice, head_tails)
head_near = MatMul(head_query, bank)
head_nearest = ReduceMax <axes = [2], keepdims = 0> (head_near)
head_squares = Mul(head_z, head_z)
head_norm = ReduceSum <keepdims = 0> (head_squares, head_axis_2)
head_difference = Sub(head_norm, head_nearest)
head_squared = Relu(head_difference)
head_distance = Sqrt(head_squared)
"""

# Distances to every group's Gaussian, [G, P, B], then the one of the image's own group: the factors (the largest
# arrays here) are read once for the whole batch, where picking them per image first would copy them per image. The
# difference is below zero for full covariances, whose scales are zero, and by rounding alone for others.
_PADIM = """
head_projected = MatMul(patches, patch_projection)
head_patch = Unsqueeze(head_projected, head_axis_1)
head_centred = Sub(head_patch, patch_means)
head_columns = Transpose <perm = [1, 2, 0, 3]> (head_centred)
head_z = MatMul(head_columns, patch_factors)
head_squares = Mul(head_z, head_z)
head_norm = ReduceSum <keepdims = 0> (head_squares, head_axis_3)
head_column_squares = Mul(head_columns, head_columns)
head_length = ReduceSum <keepdims = 0> (head_column_squares, head_axis_3)
head_scale_column = Unsqueeze(patch_scales, head_axis_2)
head_scaled = Mul(head_length, head_scale_column)
head_difference = Sub(head_scaled, head_norm)
head_squared = Abs(head_difference)
head_distances = Sqrt(head_squared)
head_by_image = Transpose <perm = [2, 1, 0]> (head_distances)
head_onehot_row = Unsqueeze(head_onehot, head_axis_1)
head_own = Mul(head_by_image, head_onehot_row)
head_distance = ReduceSum <keepdims = 0> (head_own, head_axis_2)
"""

# An embedding that is not a number belongs to no group: 0 / 0 then makes the score one as well, and not a harmless 0.
_SCORE = """
head_offsets = Mul(head_onehot, score_offset)
head_offset = ReduceSum <keepdims = 1> (head_offsets, head_axis_1)
head_scales = Mul(head_onehot, score_scale)
head_own_scale = ReduceSum <keepdims = 1> (head_scales, head_axis_1)
head_scale = Div(head_own_scale, head_ones)
head_above = Sub(head_distance, head_offset)
head_scores = Mul(head_above, head_scale)
score = ReduceMax <axes = [1], keepdims = 0> (head_scores)
head_grid = Reshape(head_scores, head_grid_shape)
head_tall = MatMul(head_row_filter, head_grid)
anomaly_map = MatMul(head_tall, head_column_filter)
"""

_OPERATORS = {"patchcore": _PATCHCORE, "padim": _PADIM}


def attach_head(model: onnx.ModelProto, head: str, encoder: EncoderSpec, preprocess: PreprocessSpec) -> onnx.ModelProto:
    """The encoder's graph with a head behind it; the input model is left as it is."""
    import onnx

    inputs, outputs = graph_inputs(head, encoder, preprocess), graph_outputs(encoder, preprocess)
    # The parser wants a whole graph; only its nodes are taken over.
    parsed = onnx.parser.parse_graph(f"head () => () {{ {_GROUP} {_OPERATORS[DISTANCES[head]]} {_SCORE} }}")
    fused = onnx.ModelProto()
    fused.CopyFrom(model)
    graph = fused.graph
    graph.name = f"{model.graph.name} {head}"
    for node in parsed.node:
        node.name = f"head/{node.output[0].removeprefix('head_')}"
        graph.node.append(node)
    used = {name for node in parsed.node for name in node.input}
    constants = {name: value for name, value in _constants(encoder, preprocess).items() if name in used}
    graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    del graph.input[:], graph.output[:]
    graph.input.extend(_value_info(tensor) for tensor in inputs)
    graph.output.extend(_value_info(tensor) for tensor in outputs)
    onnx.checker.check_model(fused, full_check=True)
    return fused


def graph_inputs(head: str, encoder: EncoderSpec, preprocess: PreprocessSpec) -> tuple[TensorSpec, ...]:
    """All inputs of a fused graph, `frames` first."""
    frames = TensorSpec("frames", "uint8", ("batch", preprocess.height, preprocess.width, 3))
    return (frames, *head_inputs(head, encoder))


def graph_outputs(encoder: EncoderSpec, preprocess: PreprocessSpec) -> tuple[TensorSpec, ...]:
    """All outputs of a fused graph, the same for every head."""
    positions = encoder.grid[0] * encoder.grid[1]
    return (
        TensorSpec("score", "float32", ("batch",)),
        TensorSpec("anomaly_map", "float32", ("batch", preprocess.height, preprocess.width)),
        TensorSpec("embedding", "float32", ("batch", encoder.embedding_dim)),
        TensorSpec("patches", "float32", ("batch", positions, encoder.patch_dim)),
    )


def graph_spec(head: str, precision: str, encoder: EncoderSpec, preprocess: PreprocessSpec) -> GraphSpec:
    """What the manifest says about one graph."""
    inputs, outputs = graph_inputs(head, encoder, preprocess), graph_outputs(encoder, preprocess)
    return GraphSpec(precision, head, f"graphs/{head}-{precision}.onnx", inputs, outputs)


def _constants(encoder: EncoderSpec, preprocess: PreprocessSpec) -> dict[str, NDArray[Any]]:
    rows, columns = encoder.grid
    axes: dict[str, NDArray[Any]] = {f"head_axis_{n}": np.array([n], np.int64) for n in (1, 2, 3)}
    return axes | {
        "head_zero_column": np.zeros((1, rows * columns, 1), np.float32),
        "head_grid_shape": np.array([-1, rows, columns], np.int64),
        "head_row_filter": axis_filter(rows, preprocess.height),
        "head_column_filter": np.ascontiguousarray(axis_filter(columns, preprocess.width).T),
    }


def _value_info(tensor: TensorSpec) -> Any:
    import onnx

    kind = onnx.TensorProto.UINT8 if tensor.dtype == "uint8" else onnx.TensorProto.FLOAT
    return onnx.helper.make_tensor_value_info(tensor.name, kind, list(tensor.shape))
