"""Embeddings of many images into one file: in parts, so that memory is bounded and a killed job goes on where it was.

Beside the file to write, OUT, stands the folder .OUT.parts while the job runs:

    job.json        graph, precision and list of images; parts of another job are not taken up
    00000.npz ...   PART_IMAGES images each: `embedding` float32 [n, E], `image`, `skipped` (reasons)

Each part appears whole or not at all. When all are there they are joined into OUT, and the folder goes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.backends import Backend, open_backend
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.embedding_file import WRITERS, read_skipped
from orinspect_edge_runtime.errors import ImageError, InputError
from orinspect_edge_runtime.features import run_all
from orinspect_edge_runtime.heads import HEADS, neutral_inputs
from orinspect_edge_runtime.preprocess import Frame, Skipped, decode_ahead, too_many_skipped
from orinspect_edge_runtime.tiling import View, view_of

PART_IMAGES = 2048
Progress = Callable[[int], None]


@dataclass(frozen=True)
class EmbedJob:
    """What to embed, where to, and with what; the options are those of `open_backend`."""

    bundle: Path
    images: Sequence[Path]
    out: Path
    precision: str = "fp32"
    backend: str = "auto"
    threads: int = 0

    @property
    def folder(self) -> Path:
        """Where the parts are."""
        return self.out.with_name(f".{self.out.name}.parts")

    def parts(self) -> Iterator[tuple[Path, Sequence[Path]]]:
        """File and images of every part."""
        for number, begin in enumerate(range(0, len(self.images), PART_IMAGES)):
            yield self.folder / f"{number:05d}.npz", self.images[begin : begin + PART_IMAGES]

    def open(self) -> tuple[Backend, View]:
        """The graph, ready for frames, and how to make them."""
        bundle = Bundle.open(self.bundle)
        spec = bundle.manifest.graph(self.precision, HEADS[0])
        backend = open_backend(
            bundle.read(spec.file), spec, name=self.backend, threads=self.threads, throughput=True, bundle=bundle.path
        )
        backend.set_inputs(neutral_inputs(spec.head, bundle.manifest.encoder))
        return backend, view_of(None, bundle.manifest)


@dataclass(frozen=True)
class Embedded:
    """Number of embeddings written, the reasons of images left out, and how many images an earlier run had done."""

    count: int
    skipped: tuple[str, ...]
    resumed: int


def embed_images(job: EmbedJob, progress: Progress | None = None, engine: str = "local") -> Embedded:
    """Run a job to its end; `progress` is called with the number of images done.

    Memory: one part (8 MB at 960 numbers an image), the list of images, and the frames under way. Raises InputError for
    an ending without a writer, for an engine that is not known, and when over 5 % of the images are unreadable.
    """
    if job.out.suffix not in WRITERS:
        raise InputError(f"--out {job.out}: embeddings are written as {' or '.join(WRITERS)}")
    if engine not in ENGINES:
        raise InputError(f"engine {engine!r} is not known: use {' or '.join(ENGINES)}")
    tell = progress or (lambda done: None)
    _take_up(job)
    parts = list(job.parts())
    missing = [part for part in parts if not part[0].exists()]
    done = resumed = len(job.images) - sum(len(images) for _, images in missing)
    skipped = [reason for file, _ in parts if file.exists() for reason in read_skipped(file)]
    tell(done)
    for images, reasons in ENGINES[engine](job, missing):
        done, skipped = done + images, skipped + reasons
        tell(done)
        if len(skipped) > 0.05 * len(job.images):
            shutil.rmtree(job.folder, ignore_errors=True)
            raise too_many_skipped([Skipped(Path(), reason) for reason in skipped], len(job.images))
    count = WRITERS[job.out.suffix](job.out, [file for file, _ in parts])
    shutil.rmtree(job.folder, ignore_errors=True)
    return Embedded(count, tuple(skipped), resumed)


def embed_part(
    backend: Backend, view: View, images: Sequence[Path], file: Path, root: Path = Path()
) -> tuple[int, list[str]]:
    """Write the part `file` of some images, read from below `root`; their number, and why some were left out."""
    reasons: list[str] = []

    def readable() -> Iterator[Frame]:
        for _, frame in decode_ahead([root / image for image in images], view.spec):
            if isinstance(frame, ImageError):
                reasons.append(str(frame))
            else:
                yield frame

    found = [
        (str(images[frame.index]), outputs["embedding"][0].copy())
        for frame, outputs in run_all(backend, readable(), view)
    ]
    embedding = np.stack([row for _, row in found]) if found else np.zeros((0, 0), np.float32)
    image, skipped = np.array([name for name, _ in found], np.str_), np.array(reasons, np.str_)
    durable.write_file(root / file, lambda to: np.savez(to, embedding=embedding, image=image, skipped=skipped))
    return len(images), reasons


def _take_up(job: EmbedJob) -> None:
    """Make the folder of the parts, or keep that of a run of the very same job."""
    bundle = Bundle.open(job.bundle)
    graph = bundle.manifest.files[bundle.manifest.graph(job.precision, HEADS[0]).file].sha256
    digest = hashlib.sha256("\0".join(map(str, job.images)).encode(errors="surrogateescape")).hexdigest()
    told = {"graph": graph, "backend": job.backend, "images": len(job.images), "list": digest, "part": PART_IMAGES}
    content, file = json.dumps(told).encode(), job.folder / "job.json"
    if file.exists() and file.read_bytes() == content:
        return
    shutil.rmtree(job.folder, ignore_errors=True)
    durable.write_bytes(file, content)


def _local(job: EmbedJob, parts: list[tuple[Path, Sequence[Path]]]) -> Iterator[tuple[int, list[str]]]:
    if not parts:
        return
    backend, spec = job.open()
    with backend:
        for file, images in parts:
            yield embed_part(backend, spec, images, file)


def _ray(job: EmbedJob, parts: list[tuple[Path, Sequence[Path]]]) -> Iterator[tuple[int, list[str]]]:
    from orinspect_edge_runtime.embed_ray import embed_parts

    return embed_parts(job, parts)


ENGINES = {"local": _local, "ray": _ray}
