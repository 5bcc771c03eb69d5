"""Golden replay: every graph must reproduce the outputs that were recorded when the bundle was made."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime import metrics
from orinspect_edge_runtime.backends import Backend, open_backend
from orinspect_edge_runtime.bundle import GOLDEN, Bundle
from orinspect_edge_runtime.errors import BundleError
from orinspect_edge_runtime.manifest import GraphSpec

# Least cosine of any golden frame's embedding to the recorded one of this precision; the order of the scores must be
# kept as well.
LEAST_COSINE = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.99, "int8-cpu": 0.99}
# Two golden frames must keep their order where their recorded scores differ by more than this share of the mean score:
# the scores of like frames are nearly tied, and which of them comes first means nothing.
ORDER_TOLERANCE = {"fp32": 0.001, "fp16": 0.01, "int8": 0.1, "int8-cpu": 0.1}
Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Replay:
    """How one graph reproduced golden. passed: both limits of its precision were kept and every value is finite."""

    precision: str
    head: str
    least_cosine: float
    rank_correlation: float
    passed: bool


def read_golden(bundle: Bundle) -> Arrays:
    """Arrays of golden.npz: `frames`, `embedding`, `score_HEAD`, `HEAD.INPUT` and others (see export's golden.py).

    Raises BundleError when it is none, though its bytes are those that the manifest lists.
    """
    try:
        with np.load(io.BytesIO(bundle.read(GOLDEN)), allow_pickle=False) as entries:
            return {name: entries[name] for name in entries.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise BundleError(f"{bundle.path / GOLDEN}: not the arrays that an export writes; export again") from error


def head_arrays(golden: Arrays, head: str) -> Arrays:
    """The recorded inputs of a head, by the names of heads.py."""
    prefix = f"{head}."
    return {name.removeprefix(prefix): array for name, array in golden.items() if name.startswith(prefix)}


def replay(bundle: Bundle, spec: GraphSpec, golden: Arrays, backend: str = "onnxruntime") -> Replay:
    """Run one graph on the golden frames with the golden head inputs and compare."""
    with open_backend(bundle.read(spec.file), spec, name=backend, bundle=bundle.path) as opened:
        return compare(opened, spec, golden)


def compare(opened: Backend, spec: GraphSpec, golden: Arrays) -> Replay:
    """How an opened backend reproduces golden: what its own precision gave, or fp32 where only that was recorded."""
    opened.set_inputs(head_arrays(golden, spec.head))
    outputs = [opened.run(frame[None]) for frame in np.asarray(golden["frames"], np.uint8)]
    embedding = np.concatenate([output["embedding"] for output in outputs])
    score = np.concatenate([output["score"] for output in outputs])
    recorded = [_recorded(golden, name, spec) for name in ("embedding", f"score_{spec.head}")]
    cosine = least_cosine(embedding, recorded[0])
    order = metrics.spearman(score, recorded[1])
    finite = bool(np.isfinite(embedding).all() and np.isfinite(score).all())
    kept = order_is_kept(score, recorded[1], ORDER_TOLERANCE[spec.precision])
    good = kept and cosine >= LEAST_COSINE[spec.precision]
    return Replay(spec.precision, spec.head, cosine, order, finite and good)


def _recorded(golden: Arrays, name: str, spec: GraphSpec) -> NDArray[np.generic]:
    """Of the head's own encoder, where it has one, and in its precision."""
    own = golden.get(f"{name}_{spec.head}_{spec.precision}")
    return golden.get(f"{name}_{spec.precision}", golden[name]) if own is None else own


def order_is_kept(ours: NDArray[np.generic], theirs: NDArray[np.generic], tolerance: float) -> bool:
    """Whether all pairs that lie further apart in `theirs` than tolerance x its mean size have that order in `ours`."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    gaps = b[:, None] - b[None, :]
    clear = gaps > tolerance * np.abs(b).mean()
    return bool(((a[:, None] - a[None, :])[clear] > 0).all())


def least_cosine(ours: NDArray[np.generic], theirs: NDArray[np.generic]) -> float:
    """Smallest cosine over rows of two [N, E] arrays."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-30)).min())
