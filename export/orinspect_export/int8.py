"""INT8: the encoder's convolutions and linear layers with Q/DQ pairs around them; the head stays in float32.

Post-training quantisation after "Integer Quantization for Deep Learning Inference" (Wu et al. 2020, arXiv 2004.09602):
ranges of activations are calibrated on images, the few layers that would cost most stay in float32, and biases take
back the shift that rounding causes. Activations are quantised where such a layer or a residual sum reads them and
nowhere else, so TensorRT fuses convolution, activation, sum and the next quantisation into one INT8 kernel.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orinspect_edge_runtime.errors import InputError
from orinspect_export.activations import Frames
from orinspect_export.bias_correction import add_to_biases, mean_shifts
from orinspect_export.calibration import activation_ranges
from orinspect_export.qdq import Places, Ranges, activations, drop_unused, quantisable, quantise

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Placement:
    """Where Q/DQ pairs stand, and the largest magnitude that each of their activations can have."""

    places: Places
    ranges: Ranges


def calibrate(model: onnx.ModelProto, frames: Frames, calibrator: str = "mse") -> Placement:
    """Pairs before every layer and residual sum. frames: uint8 [N, H, W, 3]. calibrator: of calibration.CALIBRATORS.

    Raises InputError when the encoder has no layer to quantise.
    """
    places = quantisable(model)
    if not places:
        raise InputError("the encoder has no convolution or linear layer to quantise: export without int8")
    return Placement(places, activation_ranges(model, activations(model, places), frames, calibrator))


class Quantiser:
    """Makes INT8 graphs of one encoder, calibrated once.

    layers: names of all that can be rounded. frames: uint8 [N, H, W, 3], the calibration images, which also tell what
    biases take back. placement: where the pairs stand, as `calibrate` says unless given. Raises InputError: see there.
    """

    def __init__(self, model: onnx.ModelProto, frames: Frames, placement: Placement | None = None) -> None:
        placement = placement or calibrate(model, frames)
        self.layers = list(placement.places)
        self._model, self._placement = model, placement
        self._shifts = mean_shifts(model, placement.ranges, self.layers, frames)

    def build(self, kept: Collection[str] = ()) -> onnx.ModelProto:
        """The graph with all layers rounded but the kept ones; the original is left as it is."""
        import onnx

        chosen = {name: places for name, places in self._placement.places.items() if name not in kept}
        quantised = quantise(self._model, self._placement.ranges, chosen)
        add_to_biases(quantised, {name: shift for name, shift in self._shifts.items() if name in chosen})
        drop_unused(quantised.graph)
        onnx.checker.check_model(quantised, full_check=True)
        return quantised
