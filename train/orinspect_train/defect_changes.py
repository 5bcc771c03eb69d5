"""What drawn defects change in the patch features of an encoder (see drawn_defects.py of the runtime)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from orinspect_train.defects import draw_defect

Floats = NDArray[np.float32]
Frames = NDArray[np.uint8]
# Of each frame.
DRAWS = 4
# Share of the largest squared change by a defect below which a patch does not see it.
TOUCHED = 1e-6


def defect_changes(patches_of: Callable[[Frames], Floats], frames: Frames, seed: int) -> Floats:
    """Mean outer product of the changes of the patches that a drawn defect touches, float32 [D, D].

    patches_of: patch features [N, P, D] of frames; it gets one frame at a time with what is drawn on it, so that memory does
    not grow with their number. frames: uint8 [N, H, W, 3], good images.
    """
    rng = np.random.default_rng(seed)
    total, count = np.zeros(()), 0
    for frame in frames:
        drawn = [draw_defect(frame, frames[other], rng)[0] for other in rng.integers(len(frames), size=DRAWS)]
        clean, *changed = patches_of(np.stack([frame, *drawn]))
        for patches in changed:
            vectors = touched(patches - clean)
            total, count = total + vectors.T @ vectors, count + len(vectors)
    return np.asarray(total / max(count, 1), np.float32)


def touched(changes: Floats) -> NDArray[np.float64]:
    """Those of the patches' changes [P, D] by one defect that are no rounding, [n, D]."""
    squared = np.square(changes, dtype=np.float64).sum(axis=1)
    return np.asarray(changes[squared > TOUCHED * squared.max(initial=0)], np.float64)
