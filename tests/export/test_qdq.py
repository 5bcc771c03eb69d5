"""Q/DQ pairs: the form TensorRT takes, in the places where it fuses them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from orinspect_export.graph import EncoderGraph
from orinspect_export.qdq import activations, quantisable, quantise, residual_operands, weighted_layers

INT8, FLOAT = onnx.TensorProto.INT8, onnx.TensorProto.FLOAT


def quantised(graph: EncoderGraph, chosen: list[str] | None = None) -> Any:
    places = quantisable(graph.model)
    names = places if chosen is None else chosen
    return quantise(graph.model, dict.fromkeys(activations(graph.model, places), 6.0), {n: places[n] for n in names})


def constants(model: Any) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


@pytest.fixture(params=["resnet", "squeeze", "lite0"])
def graph(request: pytest.FixtureRequest) -> EncoderGraph:
    encoder: EncoderGraph = request.getfixturevalue(request.param)
    return encoder


def test_every_pair_is_symmetric_int8(graph: EncoderGraph) -> None:
    model = quantised(graph)
    known = constants(model)
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > len(weighted_layers(graph.model))
    for node in pairs:
        scale, zero = known[node.input[1]], known[node.input[2]]
        assert zero.data_type == INT8
        assert not onnx.numpy_helper.to_array(zero).any()
        assert scale.data_type == FLOAT
        assert (onnx.numpy_helper.to_array(scale) > 0).all()


def test_convolutions_read_int8_and_biases_stay_float(graph: EncoderGraph) -> None:
    model = quantised(graph)
    known, maker = constants(model), {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        weight = maker[node.input[1]]
        assert maker[node.input[0]].op_type == weight.op_type == "DequantizeLinear"
        assert known[weight.input[0]].data_type == INT8
        assert list(known[weight.input[1]].dims) == [known[weight.input[0]].dims[0]], "one scale an output channel"
        assert all(known[name].data_type == FLOAT for name in node.input[2:])


def test_nothing_stands_between_convolution_and_activation(lite0: EncoderGraph) -> None:
    readers = {name: node.op_type for node in quantised(lite0).graph.node for name in node.input}
    clipped = [node for node in lite0.model.graph.node if node.op_type == "Conv" and readers[node.output[0]] == "Clip"]
    assert len(clipped) == 32


def test_a_residual_sum_reads_one_int8_operand(lite0: EncoderGraph) -> None:
    operands = [place for places in residual_operands(lite0.model).values() for place in places]
    nodes = [lite0.model.graph.node[index] for index, _ in operands]
    assert len(operands) == 9
    assert {node.op_type for node in nodes} == {"Add"}
    maker = {name: node.op_type for node in quantised(lite0).graph.node for name in node.output}
    sums = [
        node for node in quantised(lite0).graph.node if node.op_type == "Add" and node.name in {n.name for n in nodes}
    ]
    assert all(sorted(maker[name] for name in node.input) == ["Conv", "DequantizeLinear"] for node in sums)


def test_a_sum_that_no_convolution_takes_in_stays() -> None:
    """As in transformers: both operands come from something else than a convolution."""
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["x", "w"], ["a"], name="first"),
        make("Relu", ["a"], ["b"]),
        make("Sigmoid", ["a"], ["c"]),
        make("Add", ["b", "c"], ["d"], name="loose"),
        make("Conv", ["d", "w"], ["e"], name="second"),
        make("Add", ["d", "e"], ["y"], name="fused"),
    ]
    ends = [onnx.helper.make_tensor_value_info(name, FLOAT, [1, 2, 4, 4]) for name in "xy"]
    weights = onnx.numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), "w")
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], [weights]))
    assert residual_operands(model) == {"fused": [(5, 0)]}


def test_weights_are_rounded_to_the_nearest_step(resnet: EncoderGraph) -> None:
    before, after = constants(resnet.model), constants(quantised(resnet))
    for node in resnet.model.graph.node:
        if node.op_type == "Conv":
            name = node.input[1]
            weight, whole, scale = (
                onnx.numpy_helper.to_array(t) for t in (before[name], after[f"{name}_q"], after[f"{name}_scale"])
            )
            steps = scale.reshape(-1, 1, 1, 1)
            assert np.abs(whole * steps - weight).max() <= 0.501 * steps.max()
            assert np.abs(whole).reshape(len(whole), -1).max(axis=1).tolist() == [127] * len(whole)
            assert name not in after


def test_a_convolution_that_was_not_chosen_stays_float(resnet: EncoderGraph) -> None:
    kept, *others = weighted_layers(resnet.model)
    model = quantised(resnet, others)
    node = next(node for node in model.graph.node if node.name == kept)
    assert constants(model)[node.input[1]].data_type == FLOAT
    assert node.input[0] in {name for node in resnet.model.graph.node for name in node.output}


def test_a_dead_channel_still_has_a_scale(resnet: EncoderGraph) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(resnet.model)
    name = next(node for node in model.graph.node if node.op_type == "Conv").input[1]
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] = 0
    weight.CopyFrom(onnx.numpy_helper.from_array(values, name))
    places = quantisable(model)
    known = constants(quantise(model, dict.fromkeys(activations(model, places), 0.0), places))
    assert np.isfinite(onnx.numpy_helper.to_array(known[f"{name}_scale"])).all()
    assert not onnx.numpy_helper.to_array(known[f"{name}_q"])[0].any()
