"""Scores that images would get from a model that had not seen them, and what that says of the model of all of them.

K folds, each scored by a model of the others, because a memory bank scores its own images far too low. Those models saw
fewer images than the one that will run, so they score somewhat higher; how much is read off models that saw still fewer
(`head_start`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.features import Features
from orinspect_edge_runtime.groups import Groups
from orinspect_edge_runtime.recipe_threshold import FOLDS
from orinspect_edge_runtime.scorers import Scorer

HALVES = 2
FEWEST_TO_HALVE = 20
# Fewer scores than this say little of their own spread: it is then taken to be at least this share of their mean.
FEWEST_FOR_SPREAD, LEAST_SPREAD = 4, 0.1
Floats = NDArray[np.float32]
Progress = Callable[[float], None]


def fit_scorer(
    scorer: Scorer, features: Features, labels: NDArray[np.intp], group_count: int, seed: int
) -> dict[str, NDArray[Any]]:
    """The scorer's arrays on the features of good images of the groups `labels` [N]."""
    return dict(scorer.fit(features.embedding, features.patches, labels, group_count, seed=seed))


def unseen_scores(scorer: Scorer, features: Features, groups: Groups, folds: int, seed: int, tell: Progress) -> Floats:
    """Raw score of every image from a model fitted without it (K folds, drawn within each group), float32 [N]."""
    fold = fold_numbers(groups.labels, min(folds, len(features.embedding)), seed)
    scores = np.zeros(len(fold), np.float32)
    for number in np.unique(fold):
        seen, held = fold != number, fold == number
        part = Features(features.embedding[seen], features.patches[seen])
        arrays = fit_scorer(scorer, part, groups.labels[seen], groups.count, seed)
        scores[held], _ = scorer.raw_scores(
            arrays, features.embedding[held], features.patches[held], groups.labels[held]
        )
        tell((number + 1) / folds)
    return scores


def head_start(raw: Floats, halves: Floats, groups: Groups) -> Floats:
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


def normalisation(raw: Floats, groups: Groups) -> tuple[Floats, Floats]:
    """Offset and scale per group, [G] each: unseen good images get mean 0 and standard deviation 1 in every group."""
    least = LEAST_SPREAD * raw.mean() if len(raw) < FEWEST_FOR_SPREAD else 0.0
    offset = np.full(groups.count, raw.mean(), np.float32)
    spread = np.full(groups.count, max(raw.std(), least), np.float32)
    for group in range(groups.count):
        scores = raw[groups.labels == group]
        if len(scores) >= FEWEST_FOR_SPREAD:
            offset[group], spread[group] = scores.mean(), scores.std()
    return offset, (1 / np.maximum(spread, 1e-6)).astype(np.float32)
