"""Statistics of a graph's real activations: what threatens half precision, and which channels INT8 cannot share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orinspect_export.activations import Frames, activation_values

if TYPE_CHECKING:
    import onnx

LARGEST_HALF = float(np.finfo(np.float16).max)
SMALLEST_NORMAL_HALF = float(np.finfo(np.float16).tiny)
# Images to come may reach further than those measured: this much room is left below the largest half.
ROOM = 4.0
# A channel that reaches this many times as far as the middle one leaves the others hardly a step of INT8.
OUTLIER = 100.0
FRAMES = 16


@dataclass(frozen=True)
class TensorStatistics:
    """Magnitudes of one tensor over all frames.

    largest: of all values. typical: the median of the channels' largest. channel: index of the channel that reaches
    furthest. subnormal: share of the values other than zero that half precision holds with fewer bits.
    """

    largest: float
    typical: float
    channel: int
    subnormal: float

    @property
    def threatens_half(self) -> bool:
        """Whether values like these could pass the largest half-precision number, 65504; not finite ones do."""
        return not self.largest * ROOM <= LARGEST_HALF

    @property
    def channel_ratio(self) -> float:
        """How many times as far as the middle channel the furthest one reaches."""
        return self.largest / max(self.typical, 1e-30)

    @property
    def has_outlier(self) -> bool:
        """Whether one channel reaches so far that a range for all channels serves only it."""
        return self.typical > 0 and self.channel_ratio >= OUTLIER


def activation_statistics(model: onnx.ModelProto, frames: Frames) -> dict[str, TensorStatistics]:
    """Statistics of every float32 tensor that a node of the graph makes, in the graph's order.

    frames: uint8 [N, H, W, 3]; sixteen are used, one at a time.
    """
    names = float_tensors(model)
    channels: dict[str, NDArray[np.float32]] = {}
    small, counted = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for values in activation_values(model, names, frames[:FRAMES]):
        for name, value in values.items():
            magnitude = np.abs(value)
            reached = _channel_largest(magnitude)
            channels[name] = np.maximum(channels[name], reached) if name in channels else reached
            small[name] += int(((magnitude > 0) & (magnitude < SMALLEST_NORMAL_HALF)).sum())
            counted[name] += int((magnitude > 0).sum())
    return {name: _statistics(channels[name], small[name], counted[name]) for name in names}


def float_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of the float32 tensors that nodes make, by the types that ONNX infers."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    typed = [*inferred.graph.value_info, *inferred.graph.output]
    real = {value.name for value in typed if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return [name for node in model.graph.node if node.op_type != "Constant" for name in node.output if name in real]


def _channel_largest(magnitude: NDArray[Any]) -> NDArray[np.float32]:
    """Largest magnitude of each channel: axis 1 of [1, C, H, W], the last axis of anything else."""
    axis = 1 if magnitude.ndim == 4 else max(magnitude.ndim - 1, 0)
    others = tuple(index for index in range(magnitude.ndim) if index != axis)
    return np.atleast_1d(magnitude.max(axis=others, initial=0.0)).astype(np.float32)


def _statistics(channels: NDArray[np.float32], small: int, counted: int) -> TensorStatistics:
    return TensorStatistics(
        float(channels.max(initial=0.0)),
        float(np.median(channels)) if len(channels) else 0.0,
        int(channels.argmax()) if len(channels) else 0,
        small / max(counted, 1),
    )


def outlier_channels(statistics: dict[str, TensorStatistics], inputs: dict[str, str]) -> dict[str, str]:
    """The layers whose input has an outlier channel, with the reason. inputs: names of the layers' inputs, by layer."""
    return {
        layer: f"channel {found.channel} of its input reaches {found.largest:.3g}, {found.channel_ratio:.0f} times as "
        "far as the middle channel; one INT8 range cannot serve both"
        for layer, tensor in inputs.items()
        if tensor in statistics and (found := statistics[tensor]).has_outlier
    }


def half_threats(model: onnx.ModelProto, statistics: dict[str, TensorStatistics]) -> dict[str, str]:
    """Nodes that must not work in half precision, by name, with the reason: what they read, make or weigh with."""
    from onnx import numpy_helper

    weights = {
        tensor.name: float(np.abs(values).max(initial=0.0))
        for tensor in model.graph.initializer
        if (values := numpy_helper.to_array(tensor)).dtype == np.float32
    }
    reasons: dict[str, str] = {}
    for node in model.graph.node:
        for name in [*node.input, *node.output]:
            if name in weights and not weights[name] <= LARGEST_HALF:
                reasons[node.name] = f"its weight {name} reaches {weights[name]:.3g}, half precision ends at 65504"
            elif name in statistics and statistics[name].threatens_half:
                largest = statistics[name].largest
                reasons[node.name] = f"{name} reaches {largest:.3g}, half precision ends at 65504"
    return reasons
