"""Fit a recipe: good images in, scorer arrays and a threshold with a stated false-alarm rate out.

Features are computed by the graph and precision that will run (an INT8 embedding is not an FP32 one). The threshold is
calibrated on scores of images that the model had not seen: K folds, each scored by a model of the others, because a
memory bank scores its own images far too low.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.backends import Backend, open_backend
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.groups import Groups, find_groups
from orinspect_edge_runtime.heads import head_inputs, neutral_inputs
from orinspect_edge_runtime.preprocess import Frame, PreprocessSpec, fit_to_model
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.scorers import SCORERS, Scorer
from orinspect_edge_runtime.threshold import conformal_threshold

FOLDS = 5
FEWEST_IMAGES = 4
Floats = NDArray[np.float32]
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Features:
    """Features of N images. embedding: float32 [N, E]; patches: float32 [N, P, D], before any projection."""

    embedding: Floats
    patches: Floats


@dataclass(frozen=True)
class FitOptions:
    """What a user may choose. groups: kinds of good image to tell apart, 0 to find the number by evidence."""

    scorer: str = "patchcore"
    precision: str = "fp32"
    false_alarm: float = 0.01
    groups: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scorer not in SCORERS:
            raise InputError(f"scorer {self.scorer!r} is not known: use one of {', '.join(SCORERS)}")
        if not 0 < self.false_alarm < 0.5:
            raise InputError(f"--false-alarm {self.false_alarm}: a share between 0 and 0.5, for example 0.01")


def fit_recipe(
    bundle: Bundle, frames: Iterable[Frame], name: str, options: FitOptions, progress: Progress | None = None
) -> Recipe:
    """A recipe for the good images `frames`. Raises InputError when they are fewer than four."""
    tell = progress or (lambda step, share: None)
    scorer = SCORERS[options.scorer]
    spec = bundle.manifest.graph(options.precision, scorer.head)
    with open_backend(bundle.read(spec.file), spec) as backend:
        backend.set_inputs(neutral_inputs(scorer.head, bundle.manifest.encoder))
        features = extract(backend, frames, bundle.manifest.preprocess)
        description = backend.description
    count = len(features.embedding)
    if count < FEWEST_IMAGES:
        raise InputError(f"{count} good images: at least {FEWEST_IMAGES} are needed, 50 or more are better")
    groups = find_groups(features.embedding, count=options.groups or None, seed=options.seed)
    raw = _unseen_scores(scorer, features, groups, options.seed, tell)
    offset, scale = _normalisation(raw, groups)
    calibration = ((raw - offset[groups.labels]) * scale[groups.labels]).astype(np.float32)
    limit = conformal_threshold(calibration, options.false_alarm)
    arrays = _fit(scorer, features, groups, options.seed, lambda share: tell("memory", share))
    arrays |= groups.head_arrays() | {"score_offset": offset, "score_scale": scale}
    return Recipe(
        name=name,
        scorer=options.scorer,
        precision=options.precision,
        graph_sha256=bundle.manifest.files[spec.file].sha256,
        backend=description,
        good_images=count,
        group_sizes=tuple(int(n) for n in np.bincount(groups.labels, minlength=groups.count)),
        threshold=float(limit.value),
        false_alarm=options.false_alarm,
        false_alarm_note=limit.note,
        seed=options.seed,
        created_with=f"orinspect {version('orinspect')}",
        arrays=arrays,
        calibration_scores=np.sort(calibration),
    )


def extract(backend: Backend, frames: Iterable[Frame], spec: PreprocessSpec) -> Features:
    """Features of all frames, one at a time: an embedding must not depend on its neighbours in a batch."""
    embedding, patches = [], []
    for frame in frames:
        outputs = backend.run(fit_to_model(frame.pixels, spec)[None])
        embedding.append(outputs["embedding"][0].copy())
        patches.append(outputs["patches"][0].copy())
    if not embedding:
        return Features(np.zeros((0, 0), np.float32), np.zeros((0, 0, 0), np.float32))
    return Features(np.stack(embedding), np.stack(patches))


def _fit(
    scorer: Scorer, features: Features, groups: Groups, seed: int, progress: Callable[[float], None] | None = None
) -> dict[str, NDArray[np.generic]]:
    return scorer.fit(features.embedding, features.patches, groups.labels, groups.count, seed=seed, progress=progress)


def _unseen_scores(scorer: Scorer, features: Features, groups: Groups, seed: int, tell: Progress) -> Floats:
    """Raw score of every image from a model fitted without it (K folds, drawn within each group)."""
    count = len(features.embedding)
    fold = fold_numbers(groups.labels, min(FOLDS, count), seed)
    scores = np.zeros(count, np.float32)
    for number in np.unique(fold):
        tell("calibration", float(number) / FOLDS)
        seen, held = fold != number, fold == number
        part = Features(features.embedding[seen], features.patches[seen])
        arrays = scorer.fit(part.embedding, part.patches, groups.labels[seen], groups.count, seed=seed)
        scores[held], _ = scorer.raw_scores(
            arrays, features.embedding[held], features.patches[held], groups.labels[held]
        )
    return scores


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
    offset = np.full(groups.count, raw.mean(), np.float32)
    spread = np.full(groups.count, raw.std(), np.float32)
    for group in range(groups.count):
        scores = raw[groups.labels == group]
        if len(scores) >= FEWEST_IMAGES:
            offset[group], spread[group] = scores.mean(), scores.std()
    return offset, (1 / np.maximum(spread, 1e-6)).astype(np.float32)
