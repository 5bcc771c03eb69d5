"""Sensitivity: how much rounding one layer alone moves the anomaly score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from orinspect_export.activations import Frames
from orinspect_export.decisions import DISTANCES, Floats, features_of, with_pasted_patches
from orinspect_export.gate_journal import Remember, measure_anew

if TYPE_CHECKING:
    import onnx

# Images in the memory bank, and scored by it: half of these once more with a patch pasted in. Every layer costs one
# pass over both.
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

    alone: the graph with one layer rounded. frames: uint8 [N, H, W, 3]; twelve are used. Effects are root mean
    squares of the change in units of the distances' spread; 0.01 changes no verdict. remember: by layer, see
    gate_journal.py.
    """
    good = frames[-FRAMES // 2 :]
    known, few = features_of(exact, frames[: -FRAMES // 2][-FRAMES:]), np.concatenate([good, with_pasted_patches(good)])
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
    """Root mean square in units of half of what the middle 68 % span: a few far ones would hide the order of the rest."""
    low, high = np.quantile(before, [0.16, 0.84])
    return float(np.sqrt(np.mean((after - before) ** 2)) / max(float(high - low) / 2, 1e-12))
