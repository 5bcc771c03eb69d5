"""The whole of INT8: parity, the layers that stay float, the biases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from orinspect_edge_runtime.errors import InputError
from orinspect_export.activations import activation_values, mean_of
from orinspect_export.bias_correction import add_to_biases, mean_shifts
from orinspect_export.graph import EncoderGraph, export_encoder
from orinspect_export.int8 import Quantiser, calibrate
from orinspect_export.parity import cosines
from orinspect_export.qdq import Ranges, quantisable, quantise, weighted_layers


@pytest.fixture(scope="module")
def ranges(resnet: EncoderGraph, frames: Any) -> Ranges:
    return calibrate(resnet.model, frames[:12]).ranges


@pytest.fixture(scope="module")
def int8(resnet: EncoderGraph, frames: Any) -> Any:
    return Quantiser(resnet.model, frames[:12]).build()


@pytest.mark.parametrize("batch", [1, 3])
def test_features_stay_close(
    batch: int, resnet: EncoderGraph, int8: Any, frames: Any, run_graph: Callable[..., Any]
) -> None:
    exact = run_graph(resnet.model, frames=frames[-batch:])
    rounded = run_graph(int8, frames=frames[-batch:])
    for name in ("embedding", "patches"):
        assert rounded[name].dtype == np.float32
        assert cosines(rounded[name], exact[name]).min() > 0.99
    assert np.abs(rounded["patches"] - exact["patches"]).max() > 0, "nothing was rounded"


def test_linear_layers_of_a_transformer_are_quantised_by_output_channel(
    make_run: Callable[..., Path], frames: Any, run_graph: Callable[..., Any]
) -> None:
    graph = export_encoder(make_run("test_vit"))
    quantiser = Quantiser(graph.model, frames[:12])
    kept = quantiser.layers[:1]
    rounded = quantiser.build(kept)
    linear = {n.name for n in graph.model.graph.node if n.op_type == "MatMul"} & set(weighted_layers(graph.model))
    assert len(linear) >= 8
    made = {name: node for node in rounded.graph.node for name in node.output}
    for node in rounded.graph.node:
        if node.name in linear - set(kept):
            assert [made[name].op_type for name in node.input] == ["DequantizeLinear"] * 2
            assert made[node.input[1]].attribute[0].i == 1
        elif node.op_type in ("Softmax", "LayerNormalization", "Erf"):
            assert not any(made[n].op_type == "DequantizeLinear" for n in node.input if n in made)
    exact, ours = (run_graph(model, frames=frames[-4:]) for model in (graph.model, rounded))
    assert cosines(ours["embedding"], exact["embedding"]).min() > 0.99


def test_the_file_is_a_third_as_large(int8: Any, resnet: EncoderGraph) -> None:
    assert int8.ByteSize() < 0.45 * resnet.model.ByteSize()
    assert list(int8.graph.output) == list(resnet.model.graph.output)


def test_what_is_kept_is_not_quantised(lite0: EncoderGraph, lite0_int8: Any) -> None:
    convolution = [node for node in lite0_int8.graph.node if node.op_type == "Conv"]
    plain = {node.name for node in convolution if not node.input[1].endswith("_dq")}
    assert plain == set(weighted_layers(lite0.model)[:2])


def test_a_residual_sum_can_be_kept(resnet: EncoderGraph, frames: Any) -> None:
    quantiser = Quantiser(resnet.model, frames[:4])
    sums = [name for name in quantiser.layers if name not in weighted_layers(resnet.model)]
    assert sums
    made = {name: node for node in quantiser.build(sums).graph.node for name in node.output}
    for node in made.values():
        if node.name in sums:
            assert all(made[name].op_type != "DequantizeLinear" for name in node.input)


def test_biases_take_back_the_mean_shift(resnet: EncoderGraph, ranges: Ranges, frames: Any) -> None:
    chosen = weighted_layers(resnet.model)[:1]
    made = next(node for node in resnet.model.graph.node if node.name == chosen[0]).output[0]
    rounded = quantise(resnet.model, ranges, {chosen[0]: quantisable(resnet.model)[chosen[0]]})
    few = frames[:8]

    def mean(model: Any) -> Any:
        return mean_of(activation_values(model, [made], few))[made].mean(axis=(0, 2, 3))

    before = np.abs(mean(rounded) - mean(resnet.model)).max()
    add_to_biases(rounded, mean_shifts(resnet.model, ranges, chosen, few))
    after = np.abs(mean(rounded) - mean(resnet.model)).max()
    assert before > 1e-4
    assert after < 0.02 * before


def test_shifts_are_each_layers_own(resnet: EncoderGraph, ranges: Ranges, frames: Any) -> None:
    """A layer's shift must not change with what is done to the layers before it."""
    every = weighted_layers(resnet.model)
    alone = mean_shifts(resnet.model, ranges, every[-1:], frames[:4])
    together = mean_shifts(resnet.model, ranges, every, frames[:4])
    np.testing.assert_allclose(alone[every[-1]], together[every[-1]], atol=1e-6)


def test_nothing_to_quantise_is_told(frames: Any) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        none (uint8[batch, 64, 64, 3] frames) => (float[batch, 64, 64, 3] embedding) {
            embedding = Cast <to = 1> (frames)
        }"""
    )
    with pytest.raises(InputError, match="no convolution"):
        Quantiser(model, frames)


def test_the_original_is_left_alone(resnet: EncoderGraph, frames: Any) -> None:
    before = resnet.model.SerializeToString()
    Quantiser(resnet.model, frames[:4]).build()
    assert resnet.model.SerializeToString() == before
