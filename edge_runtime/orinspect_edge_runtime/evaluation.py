"""Evaluation of a detector on labelled images: image metrics with intervals, and what the threshold did."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime import metrics
from orinspect_edge_runtime.dataset import LabelledImage
from orinspect_edge_runtime.detector import Detector, Verdict
from orinspect_edge_runtime.errors import ImageError, InputError
from orinspect_edge_runtime.in_order import in_order
from orinspect_edge_runtime.preprocess import Frame, Skipped, decode_ahead, too_many_skipped


@dataclass(frozen=True)
class ScoredImage:
    """One image's result. `image` is the file's path as given."""

    image: str
    kind: str
    is_defective: bool
    score: float
    is_anomalous: bool
    group: int


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one recipe on one dataset.

    auroc_interval: 95 % bootstrap interval. false_alarms, detections: shares of good and of defective images above the
    recipe's threshold, which never saw either.
    """

    recipe: str
    scorer: str
    precision: str
    good_images: int
    defective_images: int
    auroc: float
    auroc_interval: tuple[float, float]
    average_precision: float
    f1_max: float
    fpr_at_95_tpr: float
    threshold: float
    false_alarm_promised: float
    false_alarms: float
    detections: float
    detections_by_kind: dict[str, float]
    images: tuple[ScoredImage, ...]
    skipped: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dumps."""
        return dataclasses.asdict(self)


def from_json(values: dict[str, Any]) -> Evaluation:
    """The evaluation that `to_json` wrote. Raises InputError when fields are missing or unknown."""
    try:
        images = tuple(ScoredImage(**image) for image in values["images"])
        interval, skipped = tuple(values["auroc_interval"]), tuple(values["skipped"])
        return Evaluation(**{**values, "images": images, "auroc_interval": interval, "skipped": skipped})
    except (KeyError, TypeError) as error:
        raise InputError(f"not an evaluation as this orinspect writes it ({error}); evaluate again") from error


def evaluate(
    detector: Detector, images: list[LabelledImage], progress: Callable[[float], None] | None = None
) -> Evaluation:
    """Score every image and compute the metrics. `progress` is called with the share done.

    Raises InputError when over 5 % of the images cannot be read, or one class has none left.
    """
    scored, skipped = [], list[Skipped]()
    frames = decode_ahead([image.path for image in images], detector.bundle.manifest.preprocess)

    def judge(read: tuple[Path, Frame | ImageError]) -> Verdict | ImageError:
        return read[1] if isinstance(read[1], ImageError) else detector(read[1])

    judged = in_order(judge, frames, threads=detector.concurrency, ahead=detector.concurrency)
    for number, (image, (_, outcome)) in enumerate(zip(images, judged, strict=True)):
        if progress is not None:
            progress(number / len(images))
        verdict = outcome.result()
        if isinstance(verdict, ImageError):
            skipped.append(Skipped(image.path, str(verdict)))
            if len(skipped) > 0.05 * len(images):
                raise too_many_skipped(skipped, len(images)) from verdict
            continue
        scored.append(
            ScoredImage(
                str(image.path), image.kind, image.is_defective, verdict.score, verdict.is_anomalous, verdict.group
            )
        )
    return summarise(detector, tuple(scored), tuple(s.reason for s in skipped))


def summarise(detector: Detector, scored: tuple[ScoredImage, ...], skipped: tuple[str, ...] = ()) -> Evaluation:
    """Metrics of scored images. Raises InputError when one class is missing."""
    recipe = detector.recipe
    labels = np.array([s.is_defective for s in scored], bool)
    scores = np.array([s.score for s in scored], np.float64)
    alarms = np.array([s.is_anomalous for s in scored], bool)
    return Evaluation(
        recipe=recipe.name,
        scorer=recipe.scorer,
        precision=recipe.precision,
        good_images=int((~labels).sum()),
        defective_images=int(labels.sum()),
        auroc=metrics.auroc(labels, scores),
        auroc_interval=metrics.bootstrap_interval(metrics.auroc, labels, scores),
        average_precision=metrics.average_precision(labels, scores),
        f1_max=metrics.f1_max(labels, scores),
        fpr_at_95_tpr=metrics.fpr_at_tpr(labels, scores, 0.95),
        threshold=recipe.threshold,
        false_alarm_promised=recipe.false_alarm,
        false_alarms=float(alarms[~labels].mean()),
        detections=float(alarms[labels].mean()),
        detections_by_kind=_by_kind(scored, alarms),
        images=scored,
        skipped=skipped,
    )


def _by_kind(scored: tuple[ScoredImage, ...], alarms: NDArray[np.bool_]) -> dict[str, float]:
    kinds = np.array([s.kind for s in scored])
    return {
        str(kind): float(alarms[kinds == kind].mean())
        for kind in dict.fromkeys(s.kind for s in scored if s.is_defective)
    }
