"""Work of layers, against figures taken by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from orinspect_export.layer_work import MULTIPLICATIONS_PER_BYTE, layer_work


def test_multiplications_and_bytes() -> None:
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "w"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        make("Conv", ["a", "d"], ["b"], name="depthwise", pads=[1, 1, 1, 1], group=8),
        make("Add", ["a", "b"], ["y"], name="sum"),
    ]
    constants = {"w": (8, 4, 3, 3), "d": (8, 1, 3, 3)}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 5, 6])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8, 5, 6])],
            [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    onnx.checker.check_model(model)
    work = layer_work(model, ["conv", "depthwise", "sum"])
    result, byte = 8 * 5 * 6, MULTIPLICATIONS_PER_BYTE
    assert work == pytest.approx(
        {
            "conv": 4 * 9 * result + byte * (4 * 30 + 8 * 4 * 9 + result),
            "depthwise": 9 * result + byte * (result + 8 * 9 + result),
            "sum": byte * 3 * result,
        }
    )
    assert list(layer_work(model, ["sum"])) == ["sum"]
