"""Faults planted in real graphs that leave what they compute in float32 as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper


def scale_channel(model: Any, factor: float, channel: int = 0) -> tuple[Any, str]:
    """One channel between two convolutions becomes `factor` times as large, and the second one divides by it.

    Returns the changed copy and the name of the second convolution. Only ReLU may stand between the two.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    first, second = _pair(changed)
    # ReLU makes the channel empty where it is negative throughout; a bias that reaches above zero fills it.
    _multiply(changed, first.input[1], (channel,), factor)
    _multiply(changed, first.input[2], (channel,), factor)
    _multiply(changed, second.input[1], (slice(None), channel), 1 / factor)
    return changed, second.name


def _pair(model: Any) -> tuple[Any, Any]:
    """The first convolution whose rectified result only one other convolution reads, ungrouped both."""
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in model.graph.node:
        if node.op_type != "Conv" or len(node.input) < 3:
            continue
        rectified = readers.get(node.output[0], [])
        if [n.op_type for n in rectified] != ["Relu"]:
            continue
        after = readers.get(rectified[0].output[0], [])
        if [n.op_type for n in after] == ["Conv"] and _groups(after[0]) == 1:
            return node, after[0]
    raise AssertionError("no pair of convolutions")


def _groups(node: Any) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _multiply(model: Any, name: str, where: Any, factor: float) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = np.array(numpy_helper.to_array(tensor))
    values[where] *= np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
