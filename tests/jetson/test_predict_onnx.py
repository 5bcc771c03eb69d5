"""Layer tables of real ONNX files, made here with the onnx package."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orinspect_edge_runtime.errors import InputError
from orinspect_jetson.predictor.layers import DENSE, KINDS, POINTWISE, to_json
from orinspect_jetson.predictor.model_source import read_model
from orinspect_jetson.predictor.onnx_graph import read_onnx

onnx = pytest.importorskip("onnx")


def save(path: Path, nodes: list[Any], inputs: dict[str, list[Any]], weights: dict[str, Any], output: str) -> Path:
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in inputs.items()]
    stored = [onnx.numpy_helper.from_array(w, n) for n, w in weights.items()]
    out = onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph(nodes, "g", values, [out], stored)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def convolution(path: Path, batch: Any = "batch", side: Any = 8) -> Path:
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        onnx.helper.make_node("Relu", ["c"], ["r"]),
        onnx.helper.make_node("Shape", ["r"], ["s"]),
        onnx.helper.make_node("Gather", ["s", "zero"], ["n"]),
        onnx.helper.make_node("Concat", ["n", "rest"], ["target"], axis=0),
        onnx.helper.make_node("Reshape", ["r", "target"], ["f"]),
        onnx.helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    weights = {
        "w": np.zeros((4, 3, 3, 3), np.float32),
        "v": np.zeros((256, 5), np.float32),
        "zero": np.array([0]),
        "rest": np.array([256]),
    }
    return save(path, nodes, {"x": [batch, 3, side, 8]}, weights, "y")


@pytest.mark.parametrize("batch", ["batch", 1, None])
def test_convolution_and_product(tmp_path: Path, batch: Any) -> None:
    table = read_onnx(convolution(tmp_path / "net.onnx", batch))
    assert [x.kind for x in table.layers] == [DENSE, POINTWISE]
    assert table.macs == 64 * 4 * 27 + 256 * 5
    assert table.shape == (3, 8, 8)
    assert [x.weight for x in table.layers] == [108, 1280]


def test_fixed_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch is fixed to 4"):
        read_onnx(convolution(tmp_path / "net.onnx", 4))


def test_free_side_needs_its_size(tmp_path: Path) -> None:
    file = convolution(tmp_path / "net.onnx", side="height")
    with pytest.raises(InputError, match="--size height=N"):
        read_onnx(file)
    assert read_onnx(file, sizes={"height": 8}).shape == (3, 8, 8)


def test_resident_bank_is_a_weight(tmp_path: Path) -> None:
    nodes = [onnx.helper.make_node("MatMul", ["x", "bank"], ["y"])]
    file = save(tmp_path / "net.onnx", nodes, {"x": ["batch", 9, 16], "bank": ["15+groups", "rows"]}, {}, "y")
    table = read_onnx(file, frozenset(["bank"]), {"groups": 1, "rows": 100})
    assert [(x.kind, x.m, x.n, x.channels, x.weight) for x in table.layers] == [(POINTWISE, 9, 100, 16, 1600)]
    assert table.parameters == 1600


@pytest.mark.parametrize("content", [b"", b"not onnx", b"\x08\x07\x12\xff\xff"])
def test_not_onnx(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"net\.onnx"):
        read_model(str(file))


def test_table_on_disk_gives_the_same_as_its_graph(tmp_path: Path) -> None:
    import json

    table = read_model(str(convolution(tmp_path / "net.onnx")))
    (tmp_path / "net.json").write_text(json.dumps(to_json(table)))
    assert read_model(str(tmp_path / "net.json")) == dataclasses.replace(table)


def test_every_packaged_kind_has_a_name() -> None:
    assert len(KINDS) == 7


def test_unknown_model_names_its_neighbours() -> None:
    with pytest.raises(InputError, match="YOLO11n"):
        read_model("yolo11nn")
