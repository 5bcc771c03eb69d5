"""Values inside a graph, frame by frame: what calibration and its corrections measure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

Frames = NDArray[np.uint8]


def activation_values(
    model: onnx.ModelProto, tensors: list[str], frames: Frames
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield the named tensors of an encoder's graph (inner ones or outputs) for one frame after the other.

    frames: uint8 [N, H, W, 3]. Each array starts with a batch dimension of 1.
    """
    session = watching_session(model, tensors)
    for frame in frames:
        yield dict(zip(tensors, session.run(tensors, {"frames": frame[None]}), strict=True))


def mean_of(values: Iterable[dict[str, NDArray[np.float32]]]) -> dict[str, NDArray[np.float64]]:
    """Mean of every tensor over the frames."""
    total: dict[str, NDArray[np.float64]] = {}
    count = 0
    for value in values:
        count += 1
        for name, array in value.items():
            total[name] = total[name] + array if name in total else array.astype(np.float64)
    return {name: array / count for name, array in total.items()}


def watching_session(model: onnx.ModelProto, tensors: list[str]) -> Any:
    """An onnxruntime session whose outputs are the named tensors, inner ones or outputs of the graph."""
    import onnx
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in tensors)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
