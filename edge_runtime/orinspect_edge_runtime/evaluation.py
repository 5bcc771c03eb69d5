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
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.errors import ImageError, InputError
from orinspect_edge_runtime.in_order import in_order
from orinspect_edge_runtime.labelled import LabelledImage
from orinspect_edge_runtime.localisation import Localisation, Localiser, read_mask
from orinspect_edge_runtime.preprocess import Frame, PreprocessSpec, Skipped, decode_ahead, too_many_skipped
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.verdict import Verdict

INTERVALS: dict[str, metrics.Metric] = {
    "average_precision": metrics.average_precision,
    "f1_max": metrics.f1_max,
    "fpr_at_95_tpr": metrics.fpr_at_tpr,
}


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
class Review:
    """The review band: from `threshold` up to the one of alarms. good, defective: shares of the images in it."""

    threshold: float
    good: float
    defective: float


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one recipe on one dataset.

    auroc_interval: 95 % bootstrap interval; intervals: those of the metrics named in INTERVALS. false_alarms,
    detections: shares of good and of defective images above the recipe's threshold, which never saw either.
    auroc_by_kind: of one kind of defect against all good images. localisation: None without masks or maps.
    review: None for a recipe without a review band.
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
    auroc_by_kind: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    localisation: Localisation | None
    images: tuple[ScoredImage, ...]
    skipped: tuple[str, ...]
    review: Review | None

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dumps."""
        return dataclasses.asdict(self)


def from_json(values: dict[str, Any]) -> Evaluation:
    """The evaluation that `to_json` wrote. Raises InputError when fields are missing or unknown."""
    try:
        images = tuple(ScoredImage(**image) for image in values["images"])
        interval, skipped = tuple(values["auroc_interval"]), tuple(values["skipped"])
        intervals = {name: tuple(both) for name, both in values["intervals"].items()}
        found = values["localisation"] and Localisation(**values["localisation"])
        read = {"images": images, "auroc_interval": interval, "skipped": skipped, "intervals": intervals}
        review = values["review"] and Review(**values["review"])
        return Evaluation(**{**values, **read, "localisation": found, "review": review})
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"not an evaluation as this orinspect writes it ({error}); evaluate again") from error


def evaluate(
    detector: Detector, images: list[LabelledImage], progress: Callable[[float], None] | None = None
) -> Evaluation:
    """Score every image and compute the metrics. `progress` is called with the share done.

    Images with a mask are scored first, so that of the good ones' maps only counts are kept (see Localiser); results are
    in the order given. Raises InputError when over 5 % of the images cannot be read, or one class has none left;
    ImageError for a mask.
    """
    order = sorted(range(len(images)), key=lambda number: not images[number].masks)
    scored, skipped = dict[int, ScoredImage](), list[Skipped]()
    spec, masked = detector.view.spec, any(image.masks for image in images)
    frames = decode_ahead([images[number].path for number in order], spec)

    def judge(read: tuple[Path, Frame | ImageError]) -> Verdict | ImageError:
        return read[1] if isinstance(read[1], ImageError) else detector(read[1])

    judged = in_order(judge, frames, threads=detector.concurrency, ahead=detector.concurrency)
    with Localiser() as pixels:
        for done, (number, (_, outcome)) in enumerate(zip(order, judged, strict=True)):
            if progress is not None:
                progress(done / len(images))
            image, verdict = images[number], outcome.result()
            if isinstance(verdict, ImageError):
                skipped.append(Skipped(image.path, str(verdict)))
                if len(skipped) > 0.05 * len(images):
                    raise too_many_skipped(skipped, len(images)) from verdict
                continue
            scored[number] = ScoredImage(
                str(image.path), image.kind, image.is_defective, verdict.score, verdict.is_anomalous, verdict.group
            )
            if masked:
                _localise(pixels, image, verdict, spec)
        localisation = pixels.figures()
    in_given_order = tuple(scored[number] for number in sorted(scored))
    return summarise(detector, in_given_order, tuple(s.reason for s in skipped), localisation)


def _localise(pixels: Localiser, image: LabelledImage, verdict: Verdict, spec: PreprocessSpec) -> None:
    """A defective image without a mask is left out: where its defect lies is not known."""
    if verdict.anomaly_map is None:
        return
    if image.masks:
        pixels.add_masked(image.kind, read_mask(image.masks, spec), verdict.anomaly_map)
    elif not image.is_defective:
        pixels.add_good(verdict.anomaly_map)


def summarise(
    detector: Detector,
    scored: tuple[ScoredImage, ...],
    skipped: tuple[str, ...] = (),
    localisation: Localisation | None = None,
) -> Evaluation:
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
        false_alarm_promised=recipe.promised_false_alarm,
        false_alarms=float(alarms[~labels].mean()),
        detections=float(alarms[labels].mean()),
        detections_by_kind=_by_kind(scored, alarms),
        auroc_by_kind=_auroc_by_kind(scored, labels, scores),
        intervals={name: metrics.bootstrap_interval(metric, labels, scores) for name, metric in INTERVALS.items()},
        localisation=localisation,
        images=scored,
        skipped=skipped,
        review=_review(recipe, labels, scores),
    )


def _review(recipe: Recipe, labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> Review | None:
    if recipe.review_threshold is None:
        return None
    between = (scores > recipe.review_threshold) & (scores <= recipe.threshold)
    return Review(recipe.review_threshold, float(between[~labels].mean()), float(between[labels].mean()))


def _by_kind(scored: tuple[ScoredImage, ...], alarms: NDArray[np.bool_]) -> dict[str, float]:
    kinds = np.array([s.kind for s in scored])
    return {
        str(kind): float(alarms[kinds == kind].mean())
        for kind in dict.fromkeys(s.kind for s in scored if s.is_defective)
    }


def _auroc_by_kind(
    scored: tuple[ScoredImage, ...], labels: NDArray[np.bool_], scores: NDArray[np.float64]
) -> dict[str, float]:
    kinds = np.array([s.kind for s in scored])
    names = dict.fromkeys(s.kind for s in scored if s.is_defective)
    rows = {name: ~labels | (labels & (kinds == name)) for name in names}
    return {name: metrics.auroc(labels[row], scores[row]) for name, row in rows.items()}
