"""Half precision: where it is, where it must not be, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from orinspect_edge_runtime.errors import InputError
from orinspect_export.activation_statistics import half_threats
from orinspect_export.fp16 import KEPT, half_layers, to_fp16, to_fp16_beside_int8
from orinspect_export.graph import EncoderGraph
from orinspect_export.int8 import Quantiser
from orinspect_export.parity import cosines
from orinspect_export.qdq import weighted_layers

ENCODERS = ["resnet", "squeeze", "lite0"]
FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


@pytest.fixture(params=ENCODERS)
def graph(request: pytest.FixtureRequest) -> EncoderGraph:
    encoder: EncoderGraph = request.getfixturevalue(request.param)
    return encoder


def types_of(model: Any) -> dict[str, int]:
    """Element type of every tensor of a graph."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for value in [*inferred.input, *inferred.output, *inferred.value_info]:
        types[value.name] = value.type.tensor_type.elem_type
    return types


def test_convolutions_are_half_and_sums_are_not(graph: EncoderGraph) -> None:
    model = to_fp16(graph.model)
    types = types_of(model)
    for node in model.graph.node:
        floats = {types[name] for name in [*node.input, *node.output] if types[name] in (FLOAT, HALF)}
        if node.op_type == "Conv":
            assert floats == {HALF}
        if node.op_type in KEPT:
            assert floats == {FLOAT}
        assert node.op_type == "Cast" or len(floats) <= 1, f"{node.name} mixes precisions"


def test_inputs_and_outputs_keep_their_types(graph: EncoderGraph) -> None:
    before, after = graph.model.graph, to_fp16(graph.model).graph
    assert list(after.input) == list(before.input)
    assert list(after.output) == list(before.output)


def test_normalisation_and_pooling_stay_exact(lite0: EncoderGraph) -> None:
    types = types_of(to_fp16(lite0.model))
    first = next(node for node in lite0.model.graph.node if node.op_type == "Conv")
    assert types[first.input[0]] == FLOAT
    pooled = [node for node in lite0.model.graph.node if node.op_type in ("ReduceMean", "Sqrt")]
    assert len(pooled) == 3
    assert all(types[name] == FLOAT for node in pooled for name in node.output)


@pytest.mark.parametrize("batch", [1, 3])
def test_features_stay_close(batch: int, graph: EncoderGraph, frames: Any, run_graph: Callable[..., Any]) -> None:
    exact = run_graph(graph.model, frames=frames[:batch])
    half = run_graph(to_fp16(graph.model), frames=frames[:batch])
    for name in ("embedding", "patches"):
        assert half[name].dtype == np.float32
        assert cosines(half[name], exact[name]).min() > 0.999
    assert np.abs(half["patches"] - exact["patches"]).max() > 0, "nothing was rounded"


def test_the_file_is_half_as_large(lite0: EncoderGraph) -> None:
    assert to_fp16(lite0.model).ByteSize() < 0.55 * lite0.model.ByteSize()


def test_the_original_is_left_alone(resnet: EncoderGraph) -> None:
    before = resnet.model.SerializeToString()
    to_fp16(resnet.model)
    assert resnet.model.SerializeToString() == before


@pytest.mark.parametrize("value", [7e4, np.inf, np.nan])
def test_a_weight_beyond_half_precision_is_told(value: float, resnet: EncoderGraph) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(resnet.model)
    name = next(node for node in model.graph.node if node.op_type == "Conv").input[1]
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] = value
    weight.CopyFrom(onnx.numpy_helper.from_array(values, name))
    with pytest.raises(InputError, match="too large for fp16"):
        to_fp16(model)
    victim = next(node.name for node in model.graph.node if node.op_type == "Conv")
    assert victim in half_threats(model, {})
    types = types_of(to_fp16(model, [victim]))
    assert types[name] == FLOAT, "a kept layer keeps its weight"


def test_named_nodes_stay_in_float32(resnet: EncoderGraph) -> None:
    layers = half_layers(resnet.model)
    kept = layers[2:5]
    model = to_fp16(resnet.model, kept)
    types = types_of(model)
    convolutions = {node.name: types[node.output[0]] for node in model.graph.node if node.op_type == "Conv"}
    assert {name for name, kind in convolutions.items() if kind == FLOAT} == set(kept)
    assert half_layers(resnet.model, kept) == [name for name in layers if name not in kept]


def test_beside_int8_the_kept_layers_are_half(graph: EncoderGraph, frames: Any, run_graph: Callable[..., Any]) -> None:
    kept = weighted_layers(graph.model)[1::2]
    quantised = Quantiser(graph.model, frames).build(kept)
    model = to_fp16_beside_int8(quantised)
    types = types_of(model)
    layers = {node.name: types[node.output[0]] for node in model.graph.node if node.op_type == "Conv"}
    assert layers == {name: HALF if name in kept else FLOAT for name in layers}
    exact, before, after = (run_graph(each, frames=frames[:3]) for each in (graph.model, quantised, model))
    for name in ("embedding", "patches"):
        assert after[name].dtype == np.float32
        lost = [1 - cosines(found[name], exact[name]).mean() for found in (before, after)]
        assert lost[1] < 1.5 * lost[0] + 1e-4, "half precision adds little to what INT8 changes"


def test_no_cast_stands_between_an_int8_layer_and_the_next_rounding(graph: EncoderGraph, frames: Any) -> None:
    quantised = Quantiser(graph.model, frames).build()
    assert to_fp16_beside_int8(quantised) == quantised, "every layer is INT8: nothing is left to halve"


def test_beside_int8_a_threatened_layer_stays_in_float32(resnet: EncoderGraph, frames: Any) -> None:
    kept = weighted_layers(resnet.model)[2:5]
    types = types_of(to_fp16_beside_int8(Quantiser(resnet.model, frames).build(kept), kept[:1]))
    made = {node.name: node.output[0] for node in resnet.model.graph.node}
    assert [types[made[name]] for name in kept] == [FLOAT, HALF, HALF]
