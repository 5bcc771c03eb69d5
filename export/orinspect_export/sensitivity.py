"""Which layers must not be rounded to INT8: those that move the features when they alone are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orinspect_export.activations import Frames, activation_values
from orinspect_export.qdq import Ranges, quantise

if TYPE_CHECKING:
    import onnx

# Largest mean loss of cosine (embedding or patches) that rounding one layer alone may cost. On EfficientNet-Lite0
# 42 of 48 stay below it; the six above, most of them right behind the camera, cause most of the error of all.
LARGEST_LOSS = 3e-4
# However sensitive an encoder is, at least three quarters of its layers are quantised: the parity figures then
# say that int8 does not suit it.
LARGEST_SHARE = 0.25
FRAMES = 4
FEATURES = ["embedding", "patches"]


def sensitive_layers(
    model: onnx.ModelProto,
    ranges: Ranges,
    candidates: list[str],
    frames: Frames,
    progress: Callable[[float], None] | None = None,
) -> list[str]:
    """Names of the candidates to keep in float32, the most sensitive first.

    frames: uint8 [N, H, W, 3]; four are used. progress: told the share done, 0..1.
    """
    few = frames[:FRAMES]
    exact = list(activation_values(model, FEATURES, few))
    losses: dict[str, float] = {}
    for index, name in enumerate(candidates):
        rounded = activation_values(quantise(model, ranges, [name], residuals=False), FEATURES, few)
        losses[name] = max_loss(exact, list(rounded))
        if progress is not None:
            progress((index + 1) / len(candidates))
    worst = sorted((name for name in candidates if losses[name] > LARGEST_LOSS), key=lambda name: -losses[name])
    return worst[: int(LARGEST_SHARE * len(candidates))]


def max_loss(exact: list[dict[str, NDArray[np.float32]]], rounded: list[dict[str, NDArray[np.float32]]]) -> float:
    """1 - mean cosine between the features of two graphs, the larger one of embedding and patches."""
    losses = []
    for name in FEATURES:
        pairs = zip(exact, rounded, strict=True)
        losses.append(1 - float(np.mean([cosines(a[name], b[name]).mean() for a, b in pairs])))
    return max(losses)


def cosines(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine between two arrays along the last axis; 1 where both are zero."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    both_zero = ~a.any(axis=-1) & ~b.any(axis=-1)
    result: NDArray[np.float64] = np.where(both_zero, 1.0, (a * b).sum(axis=-1) / np.maximum(lengths, 1e-30))
    return result
