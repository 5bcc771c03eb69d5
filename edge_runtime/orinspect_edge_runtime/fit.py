"""Fit a recipe: good images in, scorer arrays and a threshold with a stated false-alarm rate out.

Features are computed by the graph and precision that will run (an INT8 embedding is not an FP32 one). The threshold is
calibrated on scores of images that the model had not seen: K folds, each scored by a model of the others, because a
memory bank scores its own images far too low. Those models saw fewer images than the one that will run, so they score
somewhat higher; how much is read off models that saw still fewer (see `_head_start`). Altered copies of the images do not
stand in for unseen ones: on solar cells a threshold from shifted, zoomed and dimmed copies of one cell alarmed on 98 % of
the good ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.appearance import appearance
from orinspect_edge_runtime.backends import open_backend
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.defect_threshold import Stakes, check_defects
from orinspect_edge_runtime.drift_reference import drift_arrays
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.features import Features, extract
from orinspect_edge_runtime.groups import Groups, find_groups
from orinspect_edge_runtime.heads import neutral_inputs
from orinspect_edge_runtime.preprocess import Frame, PreprocessSpec, fit_to_model
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.recipe_threshold import FOLDS, by_defects, calibrated, with_defects
from orinspect_edge_runtime.region_mask import inspected_patches, on_all_patches
from orinspect_edge_runtime.scorers import SCORERS, Scorer
from orinspect_edge_runtime.threshold import THRESHOLDS, Threshold
from orinspect_edge_runtime.tiling import Tiles, parse_tiles, view_of

HALVES = 2
FEWEST_TO_HALVE = 20
FEWEST_IMAGES = 2
# Its bank holds patches of all places; other scorers model each place of the model's frame, or the image as a whole.
TILED_SCORER = "patchcore"
# Fewer scores than this say little of their own spread: it is then taken to be at least this share of their mean.
FEWEST_FOR_SPREAD, LEAST_SPREAD = 4, 0.1
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class FitOptions:
    """What a user may choose. groups: kinds of good image to tell apart, 0 to find the number by evidence.

    review_alarm: share of good images that a person may have to look at, those that alarm included; None for no review.
    threshold: how both are found, a name of THRESHOLDS. tiles: `3x2` to see the picture in three columns and two rows of
    tiles of the model's size, which share tile_overlap of a tile; empty to see it as a whole.
    """

    scorer: str = "patchcore"
    precision: str = "fp32"
    false_alarm: float = 0.01
    groups: int = 0
    seed: int = 0
    backend: str = "auto"
    review_alarm: float | None = None
    threshold: str = "conformal"
    tiles: str = ""
    tile_overlap: float = Tiles.overlap

    def __post_init__(self) -> None:
        if self.scorer not in SCORERS:
            raise InputError(f"scorer {self.scorer!r} is not known: use one of {', '.join(SCORERS)}")
        if self.threshold not in THRESHOLDS:
            raise InputError(f"threshold {self.threshold!r} is not known: use one of {', '.join(THRESHOLDS)}")
        if not 0 < self.false_alarm < 0.5:
            raise InputError(f"--false-alarm {self.false_alarm}: a share between 0 and 0.5, for example 0.01")
        if self.review_alarm is not None and not self.false_alarm < self.review_alarm < 1:
            raise InputError(f"--review-alarm {self.review_alarm}: a share above --false-alarm and below 1")
        if parse_tiles(self.tiles, self.tile_overlap) is not None:
            if self.scorer != TILED_SCORER:
                raise InputError(
                    f"--tiles needs the scorer {TILED_SCORER}: a patch is compared with those of every place"
                )
            if self.groups > 1:
                raise InputError("--tiles: kinds of good image cannot be told apart tile by tile; leave --groups away")


@dataclass(frozen=True)
class Fitted:
    """What `fit_features` found: all arrays of a recipe, the unseen scores they were normalised by, the threshold."""

    arrays: dict[str, NDArray[Any]]
    groups: Groups
    calibration: Floats
    threshold: Threshold
    review: Threshold | None


def fit_recipe(
    bundle: Bundle,
    frames: Iterable[Frame],
    name: str,
    options: FitOptions,
    progress: Progress | None = None,
    *,
    mask: Mask | None = None,
    defects: Iterable[Frame] = (),
    stakes: Stakes | None = None,
) -> Recipe:
    """A recipe for the good images `frames`. mask: bool [height, width], the inspected region (see region_mask.py).

    defects: images to find the threshold by, weighing `stakes` (None: F1); nothing else is fitted on them. Raises
    InputError for a single image, a single defect, and a mask with a scorer that judges the image as a whole.
    """
    if mask is not None and not SCORERS[options.scorer].has_map:
        raise InputError(f"a mask needs a scorer that sees where: {options.scorer} judges the image as a whole")
    tiles = parse_tiles(options.tiles, options.tile_overlap)
    if tiles is not None:
        if mask is not None:
            raise InputError("a mask and tiles do not go together: cut the picture to what is to be inspected")
        options = replace(options, groups=1)
    view = view_of(tiles, bundle.manifest)
    inspected = None if mask is None else inspected_patches(mask, bundle.manifest.encoder.grid)
    spec = bundle.manifest.graph(options.precision, SCORERS[options.scorer].head)
    with open_backend(
        bundle.read(spec.file), spec, name=options.backend, throughput=True, bundle=bundle.path
    ) as backend:
        backend.set_inputs(neutral_inputs(spec.head, bundle.manifest.encoder))
        names, bad_names, looks = list[str](), list[str](), list[Floats]()
        features = extract(backend, _noted(frames, view.spec, names, looks), view)
        bad = extract(backend, _noted(defects, view.spec, bad_names, []), view)
        description = backend.description
    if bad_names:
        check_defects(len(bad_names))
    fitted = fit_features(features, options, progress, inspected)
    labels = fitted.groups.labels
    drift = drift_arrays(features.embedding, np.stack(looks), labels, fitted.calibration, options.seed)
    recipe = Recipe(
        name=name,
        scorer=options.scorer,
        precision=options.precision,
        graph_sha256=bundle.manifest.files[spec.file].sha256,
        backend=description,
        good_images=len(features.embedding),
        group_sizes=tuple(int(n) for n in np.bincount(fitted.groups.labels, minlength=fitted.groups.count)),
        threshold=fitted.threshold.value,
        false_alarm=options.false_alarm,
        false_alarm_note=fitted.threshold.note,
        seed=options.seed,
        created_with=f"orinspect {version('orinspect')}",
        arrays=fitted.arrays
        | drift
        | {"image_groups": labels.astype(np.int32)}
        | ({} if mask is None else {"mask": mask}),
        calibration_scores=np.sort(fitted.calibration),
        images=tuple(names),
        calibration_images=np.argsort(fitted.calibration, kind="stable").astype(np.int32),
        review_threshold=None if fitted.review is None else fitted.review.value,
        review_alarm=options.review_alarm,
        threshold_rule=options.threshold,
        tiles=tiles,
    )
    return by_defects(with_defects(recipe, tuple(bad_names), bad), stakes or Stakes()) if bad_names else recipe


def _noted(frames: Iterable[Frame], spec: PreprocessSpec, names: list[str], looks: list[Floats]) -> Iterator[Frame]:
    """The frames as they come, at the size that is seen; their names and appearances are appended to the lists."""
    for frame in frames:
        fitted = fit_to_model(frame.pixels, spec)
        names.append(frame.source)
        looks.append(appearance(fitted))
        yield replace(frame, pixels=fitted)


def fit_features(
    features: Features, options: FitOptions, progress: Progress | None = None, inspected: Mask | None = None
) -> Fitted:
    """Fit a scorer and its threshold on the features of good images. inspected: bool [P], the patches that count.

    Raises InputError for a single image.
    """
    tell = progress or (lambda share: None)
    count, scorer = len(features.embedding), SCORERS[options.scorer]
    if count < FEWEST_IMAGES:
        raise InputError(
            f"{count} good image{'' if count == 1 else 's'}: how good parts differ cannot be seen from that; at least "
            f"{FEWEST_IMAGES} are needed, 50 or more are better"
        )
    if inspected is not None:
        features = Features(features.embedding, features.patches[:, inspected])
    groups = find_groups(features.embedding, count=options.groups or None, seed=options.seed)
    raw = _unseen_scores(scorer, features, groups, FOLDS, options.seed, lambda share: tell(0.7 * share))
    offset, scale = _normalisation(raw, groups)
    calibration = ((raw - offset[groups.labels]) * scale[groups.labels]).astype(np.float32)
    arrays = _fit(scorer, features, groups.labels, groups.count, options.seed)
    halves = _unseen_scores(scorer, features, groups, HALVES, options.seed, lambda share: tell(0.7 + 0.2 * share))
    offset = offset - _head_start(raw, halves, groups)
    arrays |= groups.head_arrays() | {"score_offset": offset, "score_scale": scale}
    if inspected is not None:
        arrays = on_all_patches(arrays, inspected) | {"inspected": inspected}
    tell(1.0)
    rule, asked = options.threshold, options.review_alarm
    review = None if asked is None else calibrated(calibration, asked, rule)
    return Fitted(arrays, groups, calibration, calibrated(calibration, options.false_alarm, rule), review)


def _fit(
    scorer: Scorer, features: Features, labels: NDArray[np.intp], group_count: int, seed: int
) -> dict[str, NDArray[Any]]:
    return dict(scorer.fit(features.embedding, features.patches, labels, group_count, seed=seed))


def _unseen_scores(scorer: Scorer, features: Features, groups: Groups, folds: int, seed: int, tell: Progress) -> Floats:
    """Raw score of every image from a model fitted without it (K folds, drawn within each group), float32 [N]."""
    fold = fold_numbers(groups.labels, min(folds, len(features.embedding)), seed)
    scores = np.zeros(len(fold), np.float32)
    for number in np.unique(fold):
        seen, held = fold != number, fold == number
        part = Features(features.embedding[seen], features.patches[seen])
        arrays = _fit(scorer, part, groups.labels[seen], groups.count, seed)
        scores[held], _ = scorer.raw_scores(
            arrays, features.embedding[held], features.patches[held], groups.labels[held]
        )
        tell((number + 1) / folds)
    return scores


def _head_start(raw: Floats, halves: Floats, groups: Groups) -> Floats:
    """How much lower the model of all images scores unseen ones than the models of the folds, float32 [G].

    Mean scores as a line in 1 / images: through 1 / (4/5 N) and 1 / (1/2 N), on to 1 / N. Groups of few images get 0.
    """
    step = (FOLDS / (FOLDS - 1) - 1) / (HALVES / (HALVES - 1) - FOLDS / (FOLDS - 1))
    found = np.zeros(groups.count, np.float32)
    for group in range(groups.count):
        rows = groups.labels == group
        if rows.sum() >= FEWEST_TO_HALVE:
            found[group] = step * float(halves[rows].mean() - raw[rows].mean())
    return found


def fold_numbers(labels: NDArray[np.intp], folds: int, seed: int) -> NDArray[np.intp]:
    """Fold number of each image, [N]: as even as possible within every group."""
    rng = np.random.default_rng(seed)
    fold = np.zeros(len(labels), np.intp)
    for group in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == group))
        fold[members] = np.arange(len(members)) % folds
    return fold


def _normalisation(raw: Floats, groups: Groups) -> tuple[Floats, Floats]:
    """Offset and scale per group, [G] each: unseen good images get mean 0 and standard deviation 1 in every group."""
    least = LEAST_SPREAD * raw.mean() if len(raw) < FEWEST_FOR_SPREAD else 0.0
    offset = np.full(groups.count, raw.mean(), np.float32)
    spread = np.full(groups.count, max(raw.std(), least), np.float32)
    for group in range(groups.count):
        scores = raw[groups.labels == group]
        if len(scores) >= FEWEST_FOR_SPREAD:
            offset[group], spread[group] = scores.mean(), scores.std()
    return offset, (1 / np.maximum(spread, 1e-6)).astype(np.float32)
