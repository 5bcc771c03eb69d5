"""Embeddings of many images into one file, in parts (parts.py): one holds `embedding` float32 [n, E] and `image`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from orinspect_edge_runtime.backends import Backend, open_backend
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.embedding_file import WRITERS
from orinspect_edge_runtime.engines import open_engine
from orinspect_edge_runtime.errors import ImageError, InputError
from orinspect_edge_runtime.features import run_all
from orinspect_edge_runtime.heads import HEADS, neutral_inputs
from orinspect_edge_runtime.parts import Part, Parts, Work, beside, fingerprint, packed
from orinspect_edge_runtime.preprocess import Frame, decode_ahead
from orinspect_edge_runtime.tiling import View, view_of

PART_IMAGES = 2048


@dataclass(frozen=True)
class EmbedJob:
    """What to embed, where to, and with what; the options are those of `open_backend`."""

    bundle: Path
    images: Sequence[Path]
    out: Path
    precision: str = "fp32"
    backend: str = "auto"
    threads: int = 0

    def parts(self) -> list[Part[Path]]:
        """All parts, in order."""
        return [
            Part(beside(self.out) / f"{number:05d}.npz", self.images[begin : begin + PART_IMAGES])
            for number, begin in enumerate(range(0, len(self.images), PART_IMAGES))
        ]

    def told(self) -> dict[str, object]:
        """What makes this job another one than others."""
        manifest = Bundle.open(self.bundle).manifest
        return {
            "job": "embed",
            "graph": manifest.files[manifest.graph(self.precision, HEADS[0]).file].sha256,
            "preprocess": dataclasses.asdict(manifest.preprocess),
            "backend": self.backend,
            "images": fingerprint(self.images),
            "part": PART_IMAGES,
        }

    @contextlib.contextmanager
    def open(self) -> Iterator[Work]:
        """The graph, ready for parts."""
        bundle = Bundle.open(self.bundle)
        spec = bundle.manifest.graph(self.precision, HEADS[0])
        backend = open_backend(
            bundle.read(spec.file), spec, name=self.backend, threads=self.threads, throughput=True, bundle=bundle.path
        )
        with backend:
            backend.set_inputs(neutral_inputs(spec.head, bundle.manifest.encoder))
            yield partial(embed_part, backend, view_of(None, bundle.manifest))

    def elsewhere(self) -> EmbedJob:
        """The job without its images, for another process."""
        return dataclasses.replace(self, images=(), threads=self.threads or 1)


@dataclass(frozen=True)
class Embedded:
    """Number of embeddings written, the reasons of images left out, and how many images an earlier run had done."""

    count: int
    skipped: tuple[str, ...]
    resumed: int


def embed_images(job: EmbedJob, progress: Callable[[int], object] | None = None, engine: str = "local") -> Embedded:
    """Run a job to its end; `progress` is called with the number of images done.

    Memory: one part (8 MB at 960 numbers an image), the list of images, and the frames under way. Raises InputError for
    an ending without a writer, for an engine that is not known, and when over 5 % of the images are unreadable.
    """
    if job.out.suffix not in WRITERS:
        raise InputError(f"--out {job.out}: embeddings are written as {' or '.join(WRITERS)}")
    opened, parts = open_engine(engine, job), job.parts()
    with Parts(beside(job.out), job.told(), len(job.images)) as taken, opened as run:
        taken.finish(parts, run, progress or (lambda done: None))
        count = WRITERS[job.out.suffix](job.out, [part.file for part in parts])
        return Embedded(count, taken.skipped(), taken.resumed)


def embed_part(backend: Backend, view: View, part: Part[Path]) -> bytes:
    """Embed the images of a part."""
    reasons: list[str] = []

    def readable() -> Iterator[Frame]:
        for _, frame in decode_ahead(list(part.images), view.spec):
            if isinstance(frame, ImageError):
                reasons.append(str(frame))
            else:
                yield frame

    found = [
        (str(part.images[frame.index]), outputs["embedding"][0].copy())
        for frame, outputs in run_all(backend, readable(), view)
    ]
    embedding = np.stack([row for _, row in found]) if found else np.zeros((0, 0), np.float32)
    image = np.array([name for name, _ in found], np.str_)
    return packed(embedding=embedding, image=image, skipped=np.array(reasons, np.str_))
