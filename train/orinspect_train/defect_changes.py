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
# Share of the largest squared change below which a patch does not see the defect.
TOUCHED = 1e-6


def defect_changes(patches_of: Callable[[Frames], Floats], frames: Frames, seed: int) -> Floats:
    """Mean outer product of the changes of the patches that a drawn defect touches, float32 [D, D].

    patches_of: patch features [N, P, D] of frames. frames: uint8 [N, H, W, 3], good images.
    """
    rng = np.random.default_rng(seed)
    drawn = [
        draw_defect(frame, frames[other], rng)[0] for frame in frames for other in rng.integers(len(frames), size=DRAWS)
    ]
    return mean_outer_product(patches_of(np.stack(drawn)) - np.repeat(patches_of(frames), DRAWS, axis=0))


def mean_outer_product(changes: Floats) -> Floats:
    """Of the patches [N, P, D] that changed at all, float32 [D, D]."""
    vectors = changes.reshape(-1, changes.shape[-1])
    squared = np.square(vectors, dtype=np.float64).sum(axis=1)
    touched = vectors[squared > TOUCHED * squared.max(initial=0)].astype(np.float64)
    return np.asarray(touched.T @ touched / max(len(touched), 1), np.float32)
