"""INT8 for CPUs: the layout that onnxruntime fuses, made by its own quantiser.

On CPUs with INT8 instructions (VNNI) a convolution runs in INT8 only when its results are quantised too, activations
are unsigned with a zero point, and biases are INT32. TensorRT refuses every one of these, so this is a graph of its own,
for computers without an NVIDIA GPU.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orinspect_export.activations import Frames
from orinspect_export.fp16 import leading_to_heavy
from orinspect_export.qdq import residual_operands, weighted_layers

if TYPE_CHECKING:
    import onnx

FRAMES = 24
# Multiplications for each result below which a convolution of the camera's channels is faster in float32 (measured: the
# 3x3 stem of EfficientNet-Lite0 costs the whole graph a fifth of its speed, the 7x7 one of ResNet-18 gains).
FEWEST_INPUTS, CAMERA_CHANNELS = 64, 4
# Operators without weights that follow a layer: fused with it, or on INT8 as it gives them.
PASSING = ("Clip", "Relu", "MaxPool")
QUANTISED = ["Conv", "MatMul", "Add", *PASSING]


class CpuQuantiser:
    """Makes graphs with unsigned INT8 activations and signed INT8 weights by channel. Arguments as of int8.Quantiser."""

    def __init__(self, model: onnx.ModelProto, frames: Frames) -> None:
        few, inner = _of_few_inputs(model), leading_to_heavy(model)
        weighted = [name for name in weighted_layers(model) if name not in few]
        # A last sum would only round the features themselves: no INT8 layer reads it.
        sums = [node.name for index, node in enumerate(model.graph.node) if node.op_type == "Add" and index in inner]
        self.layers = [*weighted, *(name for name in residual_operands(model) if name in sums)]
        self._model, self._frames = model, frames[:FRAMES]

    def build(self, kept: Collection[str] = ()) -> onnx.ModelProto:
        """The graph with all layers rounded but the kept ones; the original is left as it is."""
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        with tempfile.TemporaryDirectory(prefix="orinspect-int8-") as folder:
            # A file, for quantize_static would move the weights of a model in memory into files of its own.
            source, out = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
            onnx.save(self._model, source)
            # It advises to fold the graph first, by logging to everybody; ours is folded.
            logging.disable(logging.WARNING)
            quantize_static(
                source,
                out,
                _reader(self._frames),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=QUANTISED,
                nodes_to_exclude=self._excluded(kept),
                # Their results stay in float32, where the bias and what follows wait for them: a third less time in a ViT.
                extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
            )
            logging.disable(logging.NOTSET)
            return onnx.load(out)

    def _excluded(self, kept: Collection[str]) -> list[str]:
        """Names of the nodes that stay in float32: the kept layers, what is no layer, and what only passes those on."""
        excluded: dict[str, None] = {}
        exact = {value.name for value in self._model.graph.input}
        for node in self._model.graph.node:
            passed_on = node.op_type in PASSING and node.input[0] in exact
            if node.name in kept or passed_on or (node.op_type not in PASSING and node.name not in self.layers):
                excluded[node.name] = None
                exact.update(node.output)
        return list(excluded)


def _of_few_inputs(model: onnx.ModelProto) -> set[str]:
    """Names of the convolutions of the camera's channels that multiply too few numbers for each result."""
    few = {
        tensor.name
        for tensor in model.graph.initializer
        if len(tensor.dims) == 4
        and 1 < tensor.dims[1] <= CAMERA_CHANNELS
        and math.prod(tensor.dims[1:]) < FEWEST_INPUTS
    }
    return {node.name for node in model.graph.node if node.op_type == "Conv" and node.input[1] in few}


def _reader(frames: Frames) -> Any:
    """The frames one at a time, as onnxruntime's calibration asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the base class comes with the module
        def __init__(self) -> None:
            self._rest: Iterator[dict[str, Frames]] = ({"frames": frame[None]} for frame in frames)

        def get_next(self) -> dict[str, Frames] | None:
            return next(self._rest, None)

    return Reader()
