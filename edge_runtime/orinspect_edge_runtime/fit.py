"""Fit a recipe: good images in, scorer arrays and a threshold with a stated false-alarm rate out.

Features are computed by the graph and precision that will run (an INT8 embedding is not an FP32 one). The threshold is
calibrated on scores of images that the model had not seen (cross_fit.py). Altered copies of the images do not stand in for
unseen ones: on solar cells a threshold from shifted, zoomed and dimmed copies of one cell alarmed on 98 % of the good ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.aligned_frames import in_place, with_placing
from orinspect_edge_runtime.alignment import Aligner
from orinspect_edge_runtime.appearance import appearance
from orinspect_edge_runtime.backends import Backend, open_backend
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.cross_fit import HALVES, fit_scorer, head_start, normalisation, unseen_scores
from orinspect_edge_runtime.defect_threshold import Stakes, check_defects
from orinspect_edge_runtime.drawn_defects import defect_changes
from orinspect_edge_runtime.drift_reference import drift_arrays
from orinspect_edge_runtime.editors import editor_of, reach, taught
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.features import Features, extract, run_all
from orinspect_edge_runtime.fit_options import PADIM_SCORERS, FitOptions
from orinspect_edge_runtime.groups import Groups, find_groups
from orinspect_edge_runtime.heads import STUDENT, neutral_arrays
from orinspect_edge_runtime.learnt import fingerprint, learnt_images
from orinspect_edge_runtime.manifest import GraphSpec
from orinspect_edge_runtime.preprocess import Frame, PreprocessSpec, fit_to_model
from orinspect_edge_runtime.recipe import Recipe, aligner_of
from orinspect_edge_runtime.recipe_threshold import FOLDS, by_defects, calibrated, with_defects
from orinspect_edge_runtime.region_mask import inspected_patches, on_all_patches
from orinspect_edge_runtime.scorers import COMPLETED, SCORERS
from orinspect_edge_runtime.scorers.padim import check_rank
from orinspect_edge_runtime.threshold import Threshold
from orinspect_edge_runtime.tiling import View, parse_tiles, view_of
from orinspect_edge_runtime.whitening import check_components

FEWEST_IMAGES = 2
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Fitted:
    """What `fit_features` found: all arrays of a recipe, the unseen scores they were normalised by, the threshold.

    calibrating: int [n], the image of each of these scores.
    """

    arrays: dict[str, NDArray[Any]]
    groups: Groups
    calibration: Floats
    calibrating: NDArray[np.intp]
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
    more: Iterable[Frame] = (),
) -> Recipe:
    """A recipe for the good images `frames`. mask: bool [height, width], the inspected region (see region_mask.py).

    defects: images to find the threshold by, weighing `stakes` (None: F1); nothing else is fitted on them. more: further
    good images, which only enter the memory bank, one by one, by what it lacks of each: memory does not grow with their
    number, and the threshold that `frames` gave keeps its promise, since a row more raises no score. Raises InputError
    for a single image, a single defect, and a mask with a scorer that judges the image as a whole; RecipeError for more
    images with a scorer that has no bank.
    """
    scorer = SCORERS[options.scorer]
    if mask is not None and (not scorer.has_map or options.scorer in COMPLETED):
        raise InputError(
            f"a mask needs a scorer that judges places alone: {options.scorer} judges the image as a whole"
        )
    if mask is not None and options.tiles:
        raise InputError("a mask and tiles do not go together: cut the picture to what is to be inspected")
    view = view_of(parse_tiles(options.tiles, options.tile_overlap), bundle.manifest)
    spec = bundle.manifest.graph(options.precision, scorer.head)
    if options.scorer in PADIM_SCORERS:
        check_rank(options.rank, spec.inputs)
    check_components(options.components, bundle.manifest.encoder.patch_dim)
    changes = defect_changes(bundle) if options.likelihood_ratio else None
    with _opened(bundle, spec, options) as backend:
        frames, placing = with_placing(frames, options.align, view.spec)
        good, bad = _seen(backend, frames, view, placing), _seen(backend, defects, view, placing)
        description = backend.description
    if bad.names:
        check_defects(len(bad.names))
    recipe = _fitted(bundle, spec, description, good, name, options, progress, mask, changes)
    if placing is not None:
        reference = {"align_reference": placing.reference}
        recipe = replace(recipe, align=placing.align, arrays=recipe.arrays | reference)
    recipe = _grown(recipe, bundle, spec, options, more, view)
    return by_defects(with_defects(recipe, bad.names, bad.features), stakes or Stakes()) if bad.names else recipe


@dataclass(frozen=True)
class _Seen:
    """What is kept of some images: their names, features, appearances (appearance.py) and fingerprints (learnt.py)."""

    names: tuple[str, ...]
    features: Features
    looks: list[Floats]
    prints: list[str]


def _opened(bundle: Bundle, spec: GraphSpec, options: FitOptions) -> Backend:
    backend = open_backend(bundle.read(spec.file), spec, name=options.backend, throughput=True, bundle=bundle.path)
    backend.set_inputs(neutral_arrays(spec.inputs[1:]))
    return backend


def _seen(backend: Backend, frames: Iterable[Frame], view: View, placing: Aligner | None) -> _Seen:
    names, looks, prints = list[str](), list[Floats](), list[str]()
    features = extract(backend, _noted(frames, view.spec, names, looks, prints, placing), view)
    return _Seen(tuple(names), features, looks, prints)


def _grown(
    recipe: Recipe, bundle: Bundle, spec: GraphSpec, options: FitOptions, more: Iterable[Frame], view: View
) -> Recipe:
    """With what the bank lacks of more images. Every patch of theirs is then within reach of a row: the new radius."""
    frames = iter(more)
    first = next(frames, None)
    if first is None:
        return recipe
    editor_of(recipe)
    options.check_growing()
    placing, every = aligner_of(recipe), itertools.chain([first], frames)
    placed = (replace(frame, pixels=in_place(frame, placing, view.spec)[0]) for frame in every)
    with _opened(bundle, spec, options) as backend:
        for frame, outputs in run_all(backend, placed, view):
            recipe, _ = taught(recipe, Features(outputs["embedding"].copy(), outputs["patches"].copy()), frame.source)
    if "bank_radius" not in recipe.arrays:
        return recipe
    reaches = [reach(recipe, group) for group in range(len(recipe.group_sizes))]
    radius = np.maximum(recipe.arrays["bank_radius"], np.array(reaches, np.float32))
    return replace(recipe, arrays=recipe.arrays | {"bank_radius": radius})


def _fitted(
    bundle: Bundle,
    spec: GraphSpec,
    backend: str,
    good: _Seen,
    name: str,
    options: FitOptions,
    progress: Progress | None,
    mask: Mask | None,
    changes: Floats | None,
) -> Recipe:
    """The recipe of the images that are held in memory."""
    inspected = None if mask is None else inspected_patches(mask, bundle.manifest.encoder.grid)
    tiles = parse_tiles(options.tiles, options.tile_overlap)
    unseen = _unseen_by_student(bundle, spec, good)
    chosen = options if tiles is None else replace(options, groups=1)
    found = fit_features(good.features, chosen, progress, inspected, unseen, changes)
    labels, kept = found.groups.labels, found.calibrating
    looks = np.stack(good.looks)[kept]
    drift = drift_arrays(good.features.embedding[kept], looks, labels[kept], found.calibration, options.seed)
    return Recipe(
        name=name,
        scorer=options.scorer,
        precision=options.precision,
        graph_sha256=bundle.manifest.files[spec.file].sha256,
        backend=backend,
        good_images=len(good.names),
        group_sizes=tuple(int(n) for n in np.bincount(labels, minlength=found.groups.count)),
        threshold=found.threshold.value,
        false_alarm=options.false_alarm,
        false_alarm_note=found.threshold.note,
        seed=options.seed,
        created_with=f"orinspect {version('orinspect')}",
        arrays=found.arrays
        | drift
        | {"image_groups": labels.astype(np.int32)}
        | ({} if mask is None else {"mask": mask}),
        calibration_scores=np.sort(found.calibration),
        images=good.names,
        calibration_images=kept[np.argsort(found.calibration, kind="stable")].astype(np.int32),
        review_threshold=None if found.review is None else found.review.value,
        review_alarm=options.review_alarm,
        threshold_rule=options.threshold,
        tiles=tiles,
    )


def _unseen_by_student(bundle: Bundle, spec: GraphSpec, good: _Seen) -> Mask | None:
    """Which of the images the student in the graph has not learnt from, bool [N]; None without a student.

    Raises InputError when they are too few to find a threshold by.
    """
    if spec.head != STUDENT:
        return None
    learnt = learnt_images(bundle)
    unseen = np.array([mark not in learnt for mark in good.prints], bool)
    if len(unseen) >= FEWEST_IMAGES > unseen.sum():
        raise InputError(
            f"the student has learnt from {(~unseen).sum()} of these {len(unseen)} good images, and a threshold needs at "
            f"least {FEWEST_IMAGES} others, better 50: add good images that  orinspect student  was not given"
        )
    return unseen


def _noted(
    frames: Iterable[Frame],
    spec: PreprocessSpec,
    names: list[str],
    looks: list[Floats],
    prints: list[str],
    placing: Aligner | None,
) -> Iterator[Frame]:
    """The frames in turn, at the size that is seen; what _Seen keeps of each as it came is appended to the lists."""
    for frame in frames:
        fitted = fit_to_model(frame.pixels, spec)
        names.append(frame.source)
        looks.append(appearance(fitted))
        prints.append(fingerprint(fitted))
        yield replace(frame, pixels=fitted if placing is None else in_place(frame, placing, spec)[0])


def fit_features(
    features: Features,
    options: FitOptions,
    progress: Progress | None = None,
    inspected: Mask | None = None,
    unseen: Mask | None = None,
    changes: Floats | None = None,
) -> Fitted:
    """Fit a scorer and its threshold on the features of good images. inspected: bool [P], the patches that count.

    unseen: bool [N], the images that may say how unseen ones score; without it all, for each is judged by models that it
    took no part in. changes: of drawn_defects.py, which the option likelihood_ratio needs. Raises InputError for a single
    image.
    """
    tell = progress or (lambda share: None)
    count = len(features.embedding)
    scorer = options.chosen_scorer(changes)
    if options.likelihood_ratio and changes is None:
        raise InputError("likelihood_ratio: pass `changes` too, what drawn defects change (drawn_defects.py)")
    if count < FEWEST_IMAGES:
        raise InputError(
            f"{count} good image{'' if count == 1 else 's'}: how good parts differ cannot be seen from that; at least "
            f"{FEWEST_IMAGES} are needed, 50 or more are better"
        )
    if inspected is not None:
        features = Features(features.embedding, features.patches[:, inspected])
    groups = find_groups(features.embedding, count=options.groups or None, seed=options.seed)
    raw = unseen_scores(scorer, features, groups, FOLDS, options.seed, lambda share: tell(0.7 * share))
    kept = np.arange(count) if unseen is None else np.flatnonzero(unseen)
    raw, told = raw[kept], replace(groups, labels=groups.labels[kept])
    offset, scale = normalisation(raw, told)
    calibration = ((raw - offset[told.labels]) * scale[told.labels]).astype(np.float32)
    arrays = fit_scorer(scorer, features, groups.labels, groups.count, options.seed)
    halves = unseen_scores(scorer, features, groups, HALVES, options.seed, lambda share: tell(0.7 + 0.2 * share))
    offset = offset - head_start(raw, halves[kept], told)
    arrays |= groups.head_arrays() | {"score_offset": offset, "score_scale": scale}
    if inspected is not None:
        arrays = on_all_patches(arrays, inspected) | {"inspected": inspected}
    tell(1.0)
    rule, asked = options.threshold, options.review_alarm
    review = None if asked is None else calibrated(calibration, asked, rule)
    return Fitted(arrays, groups, calibration, kept, calibrated(calibration, options.false_alarm, rule), review)
