"""Evaluation of a detector on labelled images, in parts (parts.py): images with a mask come first, then the others.

What a part leaves behind: of its images `read` bool [n], whether they could be read; of those that could `score` float64,
`is_anomalous` bool and `group` int32; and for the pixel metrics

    of images with a mask   marked and unmarked pixels of their maps (masked_maps.py): 4 bytes a pixel of the model's size,
                            8 more for each marked one
    of the others, once all masks are known    `counts` int64 [2 T + 1] of the good images' pixels between the T distinct
                            values of marked pixels, as small as they compress; at most MOST_COUNTS parts have them
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime import masked_maps
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.engines import open_engine
from orinspect_edge_runtime.errors import ImageError, InputError
from orinspect_edge_runtime.evaluation import Evaluation, summarise
from orinspect_edge_runtime.in_order import in_order
from orinspect_edge_runtime.labelled import LabelledImage
from orinspect_edge_runtime.localisation import GOOD, GoodCounts, Localiser, MaskedMap, read_mask
from orinspect_edge_runtime.parts import Part, Parts, Run, Work, fingerprint, packed, temporary
from orinspect_edge_runtime.preprocess import Frame, decode_ahead
from orinspect_edge_runtime.scored_images import ScoredImages
from orinspect_edge_runtime.verdict import Verdict

PART_IMAGES = 128
MOST_COUNTS = 256
MASKED_BYTES = 16 << 20
Thresholds = NDArray[Any]


@dataclass(frozen=True)
class LabelledPart(Part[LabelledImage]):
    """place: of its images in the job's list [n]. thresholds: to count pixels of good images between; None: no masks yet."""

    place: NDArray[np.intp]
    thresholds: Thresholds | None = None


@dataclass(frozen=True)
class EvaluateJob:
    """What to evaluate on which images. backend, threads: what the detector was opened with, to open it elsewhere."""

    detector: Detector
    images: Sequence[LabelledImage]
    backend: str = "auto"
    threads: int = 0

    def told(self) -> dict[str, object]:
        """What makes this job another one than others: contents and what runs, no names."""
        files = (path for image in self.images for path in (image.path, *image.masks))
        kinds = (f"{image.kind}\0{image.is_defective}\0{len(image.masks)}" for image in self.images)
        return {
            **_judge_of(self.detector),
            "files": fingerprint(files),
            "kinds": hashlib.sha256("\0".join(kinds).encode(errors="surrogateescape")).hexdigest(),
            "parts": [PART_IMAGES, MOST_COUNTS, MASKED_BYTES],
        }

    @contextlib.contextmanager
    def open(self) -> Iterator[Work]:
        """The detector at hand."""
        yield partial(evaluate_part, self.detector)

    def elsewhere(self) -> EvaluateElsewhere:
        """The job for another process."""
        bundle, name = self.detector.bundle.path, self.detector.recipe.name
        return EvaluateElsewhere(bundle, name, self.backend, self.threads or 1, _judge_of(self.detector))


@dataclass(frozen=True)
class EvaluateElsewhere:
    """An EvaluateJob in another process, which opens a detector of its own; it must be the same as `judge` says."""

    bundle: Path
    recipe: str
    backend: str
    threads: int
    judge: dict[str, object]

    @contextlib.contextmanager
    def open(self) -> Iterator[Work]:
        """A detector. Raises InputError when bundle, recipe or backend are others here."""
        opening: dict[str, Any] = {"backend": self.backend, "threads": self.threads, "throughput": True}
        with Detector.load(self.bundle, self.recipe, **opening) as detector:
            here = _judge_of(detector)
            other = [f"{name} {here[name]}, not {self.judge[name]}" for name in here if here[name] != self.judge[name]]
            if other:
                raise InputError(
                    f"a worker would judge otherwise ({'; '.join(other)}): share the bundle, and name a --backend that "
                    "every machine has"
                )
            yield partial(evaluate_part, detector)


@dataclass(frozen=True)
class Evaluated:
    """An evaluation, and how many of its images an earlier run had scored."""

    evaluation: Evaluation
    resumed: int


@contextlib.contextmanager
def evaluating(
    job: EvaluateJob,
    folder: Path | None = None,
    progress: Callable[[int], object] | None = None,
    engine: str = "local",
) -> Iterator[Evaluated]:
    """Evaluate; what the parts left is kept until the body, which writes the results, has ended without an error.

    folder: for the parts, None for one in the temporary folder. progress: called with the number of images done. Memory:
    the list of images and 20 bytes for each, 12 for each marked pixel, and the frames under way. Raises InputError when
    over 5 % of the images cannot be read, or one class has none left; ImageError for a mask.
    """
    opened, told = open_engine(engine, job), job.told()
    with Parts(folder or temporary(told), told, len(job.images)) as taken, opened as run:
        yield Evaluated(_evaluated(job, taken, run, progress or (lambda done: None)), taken.resumed)


def evaluate(
    detector: Detector, images: Sequence[LabelledImage], progress: Callable[[int], object] | None = None
) -> Evaluation:
    """Score every image and compute the metrics, as `evaluating` does, with nothing left behind."""
    job = EvaluateJob(detector, images)
    with (
        tempfile.TemporaryDirectory(prefix="orinspect-") as folder,
        evaluating(job, Path(folder) / "parts", progress) as done,
    ):
        return done.evaluation


def _evaluated(job: EvaluateJob, taken: Parts, run: Run, tell: Callable[[int], object]) -> Evaluation:
    localiser, spec = Localiser(), job.detector.view.spec
    masked = np.array([bool(image.masks) for image in job.images], bool)
    size = min(PART_IMAGES, max(1, MASKED_BYTES // (4 * spec.height * spec.width)))
    first = _parts(job, taken.folder / "masked", np.flatnonzero(masked), size)
    taken.finish(first, run, tell)
    for one in _maps(first):
        localiser.add_marked(one)
    rest, thresholds = np.flatnonzero(~masked), localiser.thresholds if first else None
    size = PART_IMAGES if thresholds is None else max(PART_IMAGES, math.ceil(len(rest) / MOST_COUNTS))
    second = _parts(job, taken.folder / "other", rest, size, thresholds)
    taken.finish(second, run, tell)
    if thresholds is not None:
        for one in _maps(first):
            localiser.add_unmarked(one)
        for part in second:
            with np.load(part.file, allow_pickle=False) as entries:
                localiser.add_counts(GOOD, entries["counts"])
    return summarise(job.detector.recipe, _scored(job, first + second), taken.skipped(), localiser.figures())


def _parts(
    job: EvaluateJob, name: Path, places: NDArray[np.intp], size: int, thresholds: Thresholds | None = None
) -> list[LabelledPart]:
    drawn = [places[begin : begin + size] for begin in range(0, len(places), size)]
    return [
        LabelledPart(name.with_name(f"{name.name}-{n:05d}.npz"), [job.images[i] for i in place], place, thresholds)
        for n, place in enumerate(drawn)
    ]


def _maps(parts: Sequence[LabelledPart]) -> Iterator[MaskedMap]:
    return (one for part in parts for one in masked_maps.read_maps(part.file))


def _scored(job: EvaluateJob, parts: Sequence[LabelledPart]) -> ScoredImages:
    """What the parts say of the images that could be read, in the order of the job's list."""
    count = len(job.images)
    read, score = np.zeros(count, bool), np.zeros(count)
    is_anomalous, group = np.zeros(count, bool), np.zeros(count, np.int32)
    for part in parts:
        with np.load(part.file, allow_pickle=False) as entries:
            place = part.place[entries["read"]]
            read[place] = True
            score[place], is_anomalous[place], group[place] = (
                entries[name] for name in ("score", "is_anomalous", "group")
            )
    place = np.flatnonzero(read)
    return ScoredImages(job.images, place, score[place], is_anomalous[place], group[place])


def evaluate_part(detector: Detector, part: LabelledPart) -> bytes:
    """Score the images of a part. A defective image without a mask adds no pixels: where its defect lies is not known."""
    rows, reasons, maps = list[tuple[float, bool, int]](), list[str](), list[MaskedMap]()
    read = np.zeros(len(part.images), bool)
    good = None if part.thresholds is None else GoodCounts(part.thresholds)
    for number, (image, verdict) in enumerate(zip(part.images, _judged(detector, part.images), strict=True)):
        if isinstance(verdict, ImageError):
            reasons.append(str(verdict))
            continue
        read[number] = True
        if verdict.anomaly_map is not None and image.masks:
            mask = read_mask(image.masks, detector.view.spec)
            maps.append(MaskedMap.of(image.kind, mask, verdict.anomaly_map))
        elif verdict.anomaly_map is not None and good is not None and not image.is_defective:
            good.add(verdict.anomaly_map)
        rows.append((verdict.score, verdict.is_anomalous, verdict.group))
    return packed(
        compress=good is not None,
        read=read,
        score=np.array([score for score, _, _ in rows], np.float64),
        is_anomalous=np.array([is_anomalous for _, is_anomalous, _ in rows], bool),
        group=np.array([group for _, _, group in rows], np.int32),
        skipped=np.array(reasons, np.str_),
        **(masked_maps.entries_of(maps) if good is None else {"counts": good.total()}),
    )


def _judged(detector: Detector, images: Sequence[LabelledImage]) -> Iterator[Verdict | ImageError]:
    frames = decode_ahead([image.path for image in images], detector.view.spec)

    def judge(read: tuple[Path, Frame | ImageError]) -> Verdict | ImageError:
        return read[1] if isinstance(read[1], ImageError) else detector(read[1])

    for _, outcome in in_order(judge, frames, threads=detector.concurrency, ahead=detector.concurrency):
        yield outcome.result()


def _judge_of(detector: Detector) -> dict[str, object]:
    """What decides a verdict, beside the picture."""
    manifest = detector.bundle.manifest
    recipe = manifest.files[detector.bundle.recipe_file(detector.recipe.name)]
    preprocess = dataclasses.asdict(manifest.preprocess)
    return {"job": "evaluate", "preprocess": preprocess, "recipe": recipe.sha256, "backend": detector.description}
