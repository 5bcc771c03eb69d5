"""Embeddings of many images into one file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.backends import open_backend
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.features import run_all
from orinspect_edge_runtime.heads import HEADS, neutral_inputs
from orinspect_edge_runtime.preprocess import Frame, Skipped, read_frames


def _as_they_are(frames: Iterable[Frame]) -> Iterator[Frame]:
    return iter(frames)


def embed_images(
    bundle: Bundle,
    paths: list[Path],
    out: Path,
    precision: str,
    skipped: list[Skipped],
    *,
    backend: str = "auto",
    threads: int = 0,
    each: Callable[[Iterable[Frame]], Iterator[Frame]] = _as_they_are,
) -> int:
    """Write `embedding` float32 [N, E] and `image` (N paths) to the .npz file `out`; returns N.

    Unreadable files are appended to `skipped`. Raises InputError when they are over 5 %. `each` may wrap the frames
    (progress).
    """
    spec = bundle.manifest.graph(precision, HEADS[0])
    names, embeddings = [], []
    with open_backend(
        bundle.read(spec.file), spec, name=backend, threads=threads, throughput=True, bundle=bundle.path
    ) as opened:
        opened.set_inputs(neutral_inputs(spec.head, bundle.manifest.encoder))
        frames = read_frames(paths, bundle.manifest.preprocess, skipped)
        for frame, outputs in run_all(opened, each(frames), bundle.manifest.preprocess):
            embeddings.append(outputs["embedding"][0].copy())
            names.append(frame.source)
    dim = bundle.manifest.encoder.embedding_dim
    array = np.stack(embeddings) if embeddings else np.zeros((0, dim), np.float32)
    durable.write_file(out, lambda file: np.savez(file, embedding=array, image=np.array(names, np.str_)))
    return len(names)
