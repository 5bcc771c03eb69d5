"""Parity: how far a precision's features are from the fp32 graph's, on images no step has seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Parity:
    """The features of one precision against fp32's, in onnxruntime.

    embedding_cosine_*: of each image's embedding, patch_cosine_*: of each patch. patch_difference_max: largest absolute
    difference of a patch feature. images: how many were looked at.
    """

    embedding_cosine_mean: float
    embedding_cosine_min: float
    patch_cosine_mean: float
    patch_cosine_min: float
    patch_difference_max: float
    images: int


def compare(exact: dict[str, Floats], rounded: dict[str, Floats]) -> Parity:
    """Figures of one precision. Both arguments are as decisions.features_of gives them, for the same frames."""
    embedding, patches = (cosines(rounded[name], exact[name]) for name in ("embedding", "patches"))
    return Parity(
        float(embedding.mean()),
        float(embedding.min()),
        float(patches.mean()),
        float(patches.min()),
        float(np.abs(rounded["patches"] - exact["patches"]).max()),
        len(embedding),
    )


def cosines(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine between two arrays along the last axis; 1 where both are zero."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    both_zero = ~a.any(axis=-1) & ~b.any(axis=-1)
    result: NDArray[np.float64] = np.where(both_zero, 1.0, (a * b).sum(axis=-1) / np.maximum(lengths, 1e-30))
    return result
