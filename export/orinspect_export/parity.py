"""Parity: how far a precision's features and scores are from the fp32 graph's, on images no step has seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.metrics import spearman
from orinspect_edge_runtime.scorers.patchcore import bank_columns, nearest_distances
from orinspect_edge_runtime.whitening import fit_whitening
from orinspect_export.activations import Frames, activation_values
from orinspect_export.sensitivity import FEATURES, cosines

if TYPE_CHECKING:
    import onnx

Floats = NDArray[np.float32]
BANK_ROWS = 1000


@dataclass(frozen=True)
class Parity:
    """One precision against fp32, in onnxruntime.

    embedding_cosine_*: of each image's embedding, patch_cosine_*: of each patch. score_*: of PatchCore scores, each
    precision with a memory bank fitted through its own graph on one half of the images and scoring the other half;
    the difference is in units of the standard deviation of the fp32 scores. images: how many were looked at.
    """

    embedding_cosine_mean: float
    embedding_cosine_min: float
    patch_cosine_mean: float
    patch_cosine_min: float
    score_difference_max: float
    score_rank_correlation: float | None
    images: int


def features_of(model: onnx.ModelProto, frames: Frames) -> tuple[Floats, Floats]:
    """Embeddings [N, E] and patches [N, P, D] of an encoder's graph."""
    values = list(activation_values(model, FEATURES, frames))
    embedding, patches = (np.concatenate([value[name] for value in values]) for name in FEATURES)
    return embedding, patches


def compare(exact: tuple[Floats, Floats], rounded: tuple[Floats, Floats]) -> Parity:
    """Figures of one precision. Both arguments are as `features_of` gives them, for the same frames."""
    embedding, patches = cosines(rounded[0], exact[0]), cosines(rounded[1], exact[1])
    reference, scores = quick_scores(exact[1]), quick_scores(rounded[1])
    order = spearman(scores, reference) if len(scores) > 1 else float("nan")
    deviation = max(float(reference.std()), 1e-12)
    return Parity(
        float(embedding.mean()),
        float(embedding.min()),
        float(patches.mean()),
        float(patches.min()),
        float(np.abs(scores - reference).max()) / deviation,
        None if math.isnan(order) else order,
        len(embedding),
    )


def quick_scores(patches: Floats, seed: int = 0) -> Floats:
    """PatchCore scores of the second half of the images by a memory bank of the first half.

    The bank's rows are drawn by image and place, the same ones in every precision: a coreset would pick others after
    the smallest change, and the figures would tell of its picks.
    """
    half = len(patches) // 2
    known = patches[:half].reshape(-1, patches.shape[2])
    drawn = np.random.default_rng(seed).permutation(len(known))[:BANK_ROWS]
    whitening = fit_whitening([known])
    bank = bank_columns(whitening(known[drawn]), np.zeros(len(drawn), int), 1)
    onehot = np.ones((1, 1), np.float32)
    scores = [nearest_distances(whitening(image[None]), onehot, bank).max() for image in patches[half:]]
    return np.asarray(scores, np.float32)
