"""An evaluation: image metrics of scored images with intervals, and what the threshold did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime import metrics
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.localisation import Localisation
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.scored_images import ScoredImage, ScoredImages

INTERVALS: dict[str, metrics.Metric] = {
    "average_precision": metrics.average_precision,
    "f1_max": metrics.f1_max,
    "fpr_at_95_tpr": metrics.fpr_at_tpr,
}


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
    images: ScoredImages
    skipped: tuple[str, ...]
    review: Review | None

    def to_json(self, *, rows: bool = True) -> dict[str, Any]:
        """Plain values for json.dumps; without `rows` those of the images are left out."""
        values = vars(self) | {"images": [vars(row) for row in self.images] if rows else None}
        for name in ("localisation", "review"):
            values[name] = None if values[name] is None else vars(values[name])
        return {name: value for name, value in values.items() if rows or name != "images"}


def from_json(values: dict[str, Any]) -> Evaluation:
    """The evaluation that `to_json` wrote. Raises InputError when fields are missing or unknown."""
    try:
        images = ScoredImages.of(ScoredImage(**image) for image in values["images"])
        interval, skipped = tuple(values["auroc_interval"]), tuple(values["skipped"])
        intervals = {name: tuple(both) for name, both in values["intervals"].items()}
        found = values["localisation"] and Localisation(**values["localisation"])
        read = {"images": images, "auroc_interval": interval, "skipped": skipped, "intervals": intervals}
        review = values["review"] and Review(**values["review"])
        return Evaluation(**{**values, **read, "localisation": found, "review": review})
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"not an evaluation as this orinspect writes it ({error}); evaluate again") from error


def summarise(
    recipe: Recipe,
    scored: ScoredImages,
    skipped: tuple[str, ...] = (),
    localisation: Localisation | None = None,
) -> Evaluation:
    """Metrics of scored images. Raises InputError when one class is missing."""
    labels, scores, alarms = scored.is_defective, scored.score, scored.is_anomalous
    defects = scored.defects()
    intervals = metrics.bootstrap_intervals([metrics.auroc, *INTERVALS.values()], labels, scores)
    return Evaluation(
        recipe=recipe.name,
        scorer=recipe.scorer,
        precision=recipe.precision,
        good_images=int((~labels).sum()),
        defective_images=int(labels.sum()),
        auroc=metrics.auroc(labels, scores),
        auroc_interval=intervals[0],
        average_precision=metrics.average_precision(labels, scores),
        f1_max=metrics.f1_max(labels, scores),
        fpr_at_95_tpr=metrics.fpr_at_tpr(labels, scores, 0.95),
        threshold=recipe.threshold,
        false_alarm_promised=recipe.promised_false_alarm,
        false_alarms=float(alarms[~labels].mean()),
        detections=float(alarms[labels].mean()),
        detections_by_kind={kind: float(alarms[rows].mean()) for kind, rows in defects.items()},
        auroc_by_kind={kind: _auroc_of(rows, labels, scores) for kind, rows in defects.items()},
        intervals=dict(zip(INTERVALS, intervals[1:], strict=True)),
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


def _auroc_of(rows: NDArray[np.intp], labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Of some defective images against all good ones."""
    marked = np.repeat([False, True], [(~labels).sum(), len(rows)])
    return metrics.auroc(marked, np.concatenate([scores[~labels], scores[rows]]))
