"""Features of images out of a graph, and what a recipe's arrays say of them in numpy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.backends import Backend
from orinspect_edge_runtime.in_order import in_order
from orinspect_edge_runtime.preprocess import Frame
from orinspect_edge_runtime.scorers import Scorer
from orinspect_edge_runtime.tiling import View

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """Features of N images. embedding: float32 [N, E]; patches: float32 [N, P, D], before any projection."""

    embedding: Floats
    patches: Floats


def extract(backend: Backend, frames: Iterable[Frame], view: View) -> Features:
    """Features of all frames, each run by itself: an embedding must not depend on its neighbours in a batch."""
    embedding, patches = [], []
    for _, outputs in run_all(backend, frames, view):
        embedding.append(outputs["embedding"][0].copy())
        patches.append(outputs["patches"][0].copy())
    if not embedding:
        return Features(np.zeros((0, 0), np.float32), np.zeros((0, 0, 0), np.float32))
    return Features(np.stack(embedding), np.stack(patches))


def run_all(backend: Backend, frames: Iterable[Frame], view: View) -> Iterator[tuple[Frame, dict[str, Floats]]]:
    """Each frame with its outputs, in order; as many at once as the backend likes."""

    def run(frame: Frame) -> dict[str, Floats]:
        return view.run(backend.run, frame.pixels)

    for frame, outputs in in_order(run, frames, threads=backend.concurrency, ahead=backend.concurrency):
        yield frame, outputs.result()


def assign_groups(arrays: Mapping[str, NDArray[Any]], embedding: Floats) -> NDArray[np.intp]:
    """Group of each embedding [N, E]: the largest of the linear rule's logits, as in the graph."""
    logits = (embedding - arrays["group_mean"]) @ arrays["group_projection"] + arrays["group_bias"]
    return np.asarray(logits.argmax(axis=1), np.intp)


def score_features(
    scorer: Scorer, arrays: Mapping[str, NDArray[Any]], features: Features
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Normalised scores [N] and groups [N] in numpy: what the graph's head computes, for features at hand."""
    groups = assign_groups(arrays, features.embedding)
    raw, distances = scorer.raw_scores(dict(arrays), features.embedding, features.patches, groups)
    if distances is not None and "inspected" in arrays:
        raw = distances[:, arrays["inspected"]].max(axis=1)
    return (raw - arrays["score_offset"][groups]) * np.float64(arrays["score_scale"][groups]), groups
