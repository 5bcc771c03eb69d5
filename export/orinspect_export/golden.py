"""golden.npz: frames and the outputs of each graph that every later build of it must reproduce.

    frames                     uint8 [8, H, W, 3], all different
    embedding, patches         the fp32 graph's outputs for them
    score_HEAD, anomaly_map_HEAD, and HEAD.INPUT for every head input (heads.py) they were computed with
    embedding_PRECISION, score_HEAD_PRECISION   the same of each lower precision, in onnxruntime; the student's graph is
    lowered by itself, so there is an embedding_student_PRECISION too

How far a precision may be from fp32 is the accuracy gate's business; a build is compared with its own graph.

The head inputs are a small recipe fitted to other calibration images, with two groups, so that a build which mixes up
an input, a group or a dimension cannot pass.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.backends import open_backend
from orinspect_edge_runtime.golden import head_arrays
from orinspect_edge_runtime.heads import DISTANCES, HEADS, STUDENT, projected_dim
from orinspect_edge_runtime.manifest import EncoderSpec, GraphSpec
from orinspect_edge_runtime.scorers.patchcore import bank_columns
from orinspect_edge_runtime.whitening import fit_whitening
from orinspect_export.activations import Frames

FRAMES = 8
BANK_ROWS = 96
GROUPS = 2
Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float32]


def golden_arrays(
    graphs: dict[str, tuple[bytes, GraphSpec]], encoder: EncoderSpec, frames: Frames, seed: int = 0
) -> Arrays:
    """The entries of golden.npz. graphs: of each head, ONNX bytes and spec in fp32. frames: the calibration images."""
    rng = np.random.default_rng(seed)
    embedding, patches = _features(graphs, HEADS[0], encoder, frames)
    others = rng.permutation(len(frames))[: max(len(frames) // 3, GROUPS)]
    fitted = fit_heads(embedding[others], patches[others], rng)
    if STUDENT in graphs:
        _, residuals = _features(graphs, STUDENT, encoder, frames[others])
        fitted[STUDENT] = fit_heads(embedding[others], residuals, rng)[DISTANCES[STUDENT]]
    candidates = clear_of_both(np.setdiff1d(np.arange(len(frames)), others), embedding, fitted[HEADS[0]])
    scores = run_head(*graphs[HEADS[0]], fitted[HEADS[0]], frames[candidates])["score"]
    chosen = candidates[spread(scores, FRAMES)]
    golden: Arrays = {"frames": frames[chosen], "embedding": embedding[chosen], "patches": patches[chosen]}
    for head, (graph, spec) in graphs.items():
        outputs = run_head(graph, spec, fitted[head], frames[chosen])
        golden |= {f"score_{head}": outputs["score"], f"anomaly_map_{head}": outputs["anomaly_map"]}
        golden |= {f"{head}.{name}": array for name, array in fitted[head].items()}
    return golden


def golden_of_precision(golden: Arrays, graphs: dict[str, tuple[bytes, GraphSpec]]) -> Arrays:
    """The entries of one lower precision. golden: of `golden_arrays`. graphs: of each head, ONNX bytes and spec."""
    found: Arrays = {}
    for head, (graph, spec) in graphs.items():
        outputs = run_head(graph, spec, head_arrays(golden, head), golden["frames"])
        # Every other head sits on the same encoder.
        own = f"{STUDENT}_" if head == STUDENT else ""
        found[f"embedding_{own}{spec.precision}"] = outputs["embedding"]
        found[f"score_{head}_{spec.precision}"] = outputs["score"]
    return found


def to_npz(arrays: Arrays) -> bytes:
    """The .npz file; the same arrays give the same bytes."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # a name could be `allow_pickle`; none is
    return file.getvalue()


def run_head(graph: bytes, spec: GraphSpec, inputs: Arrays, frames: Frames) -> dict[str, Floats]:
    """Outputs of a fused graph in onnxruntime for frames [N, H, W, 3], run one at a time, as a camera would."""
    with open_backend(graph, spec) as backend:
        backend.set_inputs(inputs)
        outputs = [backend.run(frame[None]) for frame in frames]
    return {name: np.concatenate([output[name] for output in outputs]) for name in outputs[0]}


def fit_heads(embedding: Floats, patches: Floats, rng: np.random.Generator) -> dict[str, Arrays]:
    """Inputs of the heads of every bundle from features of a few images, in two groups."""
    groups = two_groups(embedding)
    group_arrays, labels = nearest_centroid(embedding, groups), groups
    rows = np.concatenate([rng.permutation(np.flatnonzero(labels == g))[:1] for g in range(GROUPS)])
    pool = rng.permutation(patches.shape[0] * patches.shape[1])[: BANK_ROWS - GROUPS]
    images = np.concatenate([rows, pool // patches.shape[1]])
    places = np.concatenate([np.zeros(GROUPS, int), pool % patches.shape[1]])
    whitening = fit_whitening([patches.reshape(-1, patches.shape[2])])
    bank = bank_columns(whitening(patches[images, places]), labels[images], GROUPS)
    kept = projected_dim(patches.shape[2])
    projection = np.linalg.qr(rng.standard_normal((patches.shape[2], kept)))[0].astype(np.float32)
    patches = patches @ projection
    means = np.stack([patches[labels == g].mean(axis=0) for g in range(GROUPS)])
    # Two diagonals, not symmetric and other ones for each group; the zeros beside them take no space in the file. Scales are
    # so large that no distance is near zero.
    deviation = patches.std(axis=0) + 0.1 * patches.std()
    factor = (np.eye(kept) + 0.5 * np.eye(kept, k=1)) / deviation[:, None, :]
    factors = np.stack([factor * scale for scale in (1.0, 0.8)])[..., : max(1, kept // 2)]
    scales = np.stack([scale / deviation.min(axis=1) ** 2 for scale in (3.0, 3.5)])
    return {
        "patchcore": group_arrays
        | {"patch_mean": whitening.mean, "patch_projection": whitening.projection, "bank": bank},
        "padim": group_arrays
        | {"patch_projection": projection, "patch_means": means, "patch_factors": factors.astype(np.float32)}
        | {"patch_scales": scales.astype(np.float32)},
    }


def two_groups(embedding: Floats) -> NDArray[np.intp]:
    """Labels 0 and 1 of each image, [N], both used: 2-means from the two images farthest apart."""
    distances = np.linalg.norm(embedding[:, None] - embedding[None], axis=2)
    centroids = embedding[list(np.unravel_index(int(distances.argmax()), distances.shape))]
    labels = np.zeros(len(embedding), np.intp)
    labels[-1] = 1
    for _ in range(10):
        nearest = np.linalg.norm(embedding[:, None] - centroids[None], axis=2).argmin(axis=1)
        if len(np.unique(nearest)) < GROUPS:
            break
        labels = nearest
        centroids = np.stack([embedding[labels == g].mean(axis=0) for g in range(GROUPS)])
    return labels


def nearest_centroid(embedding: Floats, groups: NDArray[np.intp]) -> Arrays:
    """The linear rule of heads.py that picks the nearest centroid, with a normalisation that differs by group.

    It is written about the first centroid, not about the mean: there the bias decides, so a wrong one shows.
    """
    centroids = np.stack([embedding[groups == g].mean(axis=0) for g in range(GROUPS)])
    origin = centroids[0].copy()
    centroids -= origin
    return {
        "group_mean": origin,
        "group_projection": np.ascontiguousarray(centroids.T),
        "group_bias": -0.5 * (centroids**2).sum(axis=1),
        "score_offset": np.array([1.0, 1.5], np.float32),
        "score_scale": np.array([0.5, 0.75], np.float32),
    }


def clear_of_both(candidates: NDArray[np.intp], embedding: Floats, arrays: Arrays) -> NDArray[np.intp]:
    """Half of the candidates of each group, the clearest: rounding must not carry one to the other group."""
    logits = (embedding[candidates] - arrays["group_mean"]) @ arrays["group_projection"] + arrays["group_bias"]
    group, margin = logits.argmax(axis=1), np.abs(logits[:, 0] - logits[:, 1])
    kept = []
    for number in range(GROUPS):
        members = np.flatnonzero(group == number)
        kept.append(members[np.argsort(-margin[members], kind="stable")][: max(FRAMES, len(members) // 2)])
    return np.sort(candidates[np.concatenate(kept)])


def spread(scores: Floats, count: int) -> NDArray[np.intp]:
    """Indices of `count` scores evenly placed from the smallest to the largest: an order that rounding cannot upset."""
    places = np.linspace(0, len(scores) - 1, count).round().astype(int)
    ranked: NDArray[np.intp] = np.argsort(scores, kind="stable")[places]
    return ranked


def _features(
    graphs: dict[str, tuple[bytes, GraphSpec]], head: str, encoder: EncoderSpec, frames: Frames
) -> tuple[Floats, Floats]:
    from orinspect_edge_runtime.heads import neutral_inputs

    outputs = run_head(*graphs[head], neutral_inputs(head, encoder), frames)
    return outputs["embedding"], outputs["patches"]
