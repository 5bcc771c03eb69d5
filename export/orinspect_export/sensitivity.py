"""Sensitivity: how much rounding one layer alone moves the anomaly score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from orinspect_export.activations import Frames
from orinspect_export.decisions import DISTANCES, Floats, features_of
from orinspect_export.gate_journal import Remember, measure_anew

if TYPE_CHECKING:
    import onnx

# Images scored by a memory bank of as many others: every layer costs one pass over both.
FRAMES = 8


def score_effects(
    exact: onnx.ModelProto,
    layers: Sequence[str],
    alone: Callable[[str], onnx.ModelProto],
    frames: Frames,
    progress: Callable[[float], None] | None = None,
    remember: Remember = measure_anew,
) -> dict[str, float]:
    """Effect of each layer on the distances from a memory bank, of patches or of embeddings, the largest first.

    alone: the graph with one layer rounded. frames: uint8 [N, H, W, 3]; sixteen are used. Effects are root mean
    squares of the change in units of the distances' standard deviation; 0.01 changes no verdict. remember: by layer, see
    gate_journal.py.
    """
    known, few = features_of(exact, frames[-2 * FRAMES : -FRAMES]), frames[-FRAMES:]
    before = _distances(known, features_of(exact, few))

    def effect(layer: str) -> float:
        after = _distances(known, features_of(alone(layer), few))
        return max(_change(before[by], after[by]) for by in before)

    effects: dict[str, float] = {}
    for index, layer in enumerate(layers):
        effects[layer] = remember(layer, partial(effect, layer))
        if progress is not None:
            progress((index + 1) / len(layers))
    return dict(sorted(effects.items(), key=lambda item: -item[1]))


def _distances(known: dict[str, Floats], features: dict[str, Floats]) -> dict[str, Floats]:
    return {by: DISTANCES[by](known[by], values) for by, values in features.items()}


def _change(before: Floats, after: Floats) -> float:
    return float(np.sqrt(np.mean((after - before) ** 2)) / max(float(before.std()), 1e-12))
