"""INT8: the encoder's convolutions and linear layers with Q/DQ pairs around them; the head stays in float32.

Post-training quantisation after "Integer Quantization for Deep Learning Inference" (Wu et al. 2020, arXiv 2004.09602):
ranges of activations are calibrated on images, the few layers that would cost most stay in float32, and biases take
back the shift that rounding causes. Activations are quantised where such a layer or a residual sum reads them and
nowhere else, so TensorRT fuses convolution, activation, sum and the next quantisation into one INT8 kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orinspect_edge_runtime.errors import InputError
from orinspect_export.activations import Frames
from orinspect_export.bias_correction import correct_biases
from orinspect_export.calibration import activation_ranges
from orinspect_export.qdq import activations, drop_unused, quantise, weighted_layers
from orinspect_export.sensitivity import sensitive_layers

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Int8Graph:
    """model: the encoder's graph with Q/DQ pairs. kept_float: names of the layers that stay in float32."""

    model: onnx.ModelProto
    kept_float: tuple[str, ...]


def to_int8(model: onnx.ModelProto, frames: Frames, progress: Callable[[float], None] | None = None) -> Int8Graph:
    """Quantise the encoder's graph; the input model is left as it is.

    frames: uint8 [N, H, W, 3], the calibration images. progress: told the share done, 0..1.
    Raises InputError when the encoder has no layer to quantise.
    """
    import onnx

    tell = progress or (lambda share: None)
    every = weighted_layers(model)
    if not every:
        raise InputError("the encoder has no convolution or linear layer to quantise: export without int8")
    ranges = activation_ranges(model, activations(model), frames)
    tell(0.3)
    kept = sensitive_layers(model, ranges, every, frames, lambda share: tell(0.3 + 0.6 * share))
    chosen = [name for name in every if name not in kept]
    quantised = quantise(model, ranges, chosen)
    correct_biases(model, quantised, ranges, chosen, frames)
    drop_unused(quantised.graph)
    onnx.checker.check_model(quantised, full_check=True)
    tell(1.0)
    return Int8Graph(quantised, tuple(kept))
