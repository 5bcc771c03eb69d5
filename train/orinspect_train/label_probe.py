"""What a few labels tell of an encoder: nearest neighbours, a linear map, and a linear map of 1, 5 and 10 images a class.

Accuracies are balanced: the mean over the classes of the share found, so that a rare defect counts as much as the good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import InputError
from orinspect_train.config import PretrainConfig
from orinspect_train.images import FEWEST_IMAGES, read_images

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

LABEL_STREAM = 10
NEIGHBOURS, FOLDS, SHOTS, DRAWS = 5, 5, (1, 5, 10), 20
MOST_OF_A_CLASS = 500
# Share of the variance that the ridge regression adds to each dimension.
RIDGE = 0.1
RESAMPLES, INTERVAL = 1000, (0.025, 0.975)


@dataclass(frozen=True)
class Labelled:
    """pixels: uint8 [N, H, W, 3]. labels: [N], places in `classes`."""

    pixels: Pixels
    labels: Labels
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Accuracy:
    """Balanced accuracy, with the 95 % interval of resampled images, or for few shots of the draws of the shots."""

    value: float
    least: float
    most: float


@dataclass(frozen=True)
class LabelProbe:
    """classes: number of images by class. chance: of guessing. knn: each image by the others. linear: cross-validated.
    shots: by number of labelled images a class; only numbers that leave images to test on."""

    classes: dict[str, int]
    chance: float
    knn: Accuracy
    linear: Accuracy
    shots: dict[int, Accuracy]


def read_labelled(folder: Path, config: PretrainConfig) -> Labelled:
    """The images of FOLDER/CLASS/..., at most MOST_OF_A_CLASS of each.

    Raises InputError: fewer than two subfolders, or one with fewer than 8 readable images.
    """
    found = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if len(found) < 2:
        raise InputError(f"{folder}: a folder with one subfolder a class is needed, at least two of them")
    few = replace(config, max_images=max(FEWEST_IMAGES, min(config.max_images, MOST_OF_A_CLASS)))
    pixels = [read_images(path, few).pixels for path in found]
    labels = np.repeat(np.arange(len(found)), [len(part) for part in pixels])
    return Labelled(np.concatenate(pixels), labels, tuple(path.name for path in found))


def probe_labels(embed: Callable[[Pixels], Floats], data: Labelled, seed: int) -> LabelProbe:
    """All figures. embed: uint8 [N, H, W, 3] to float32 [N, E]."""
    values = embed(data.pixels).astype(np.float64)
    values = (values - values.mean(0)) / (values.std(0) + 1e-6)
    rng = np.random.default_rng([seed, LABEL_STREAM])
    labels, count = data.labels, len(data.classes)
    sizes = np.bincount(labels, minlength=count)
    shots = {shot: _few_shot(values, labels, shot, rng) for shot in SHOTS if shot < sizes.min()}
    return LabelProbe(
        classes=dict(zip(data.classes, map(int, sizes), strict=True)),
        chance=1 / count,
        knn=_with_interval(_nearest(values, labels), labels, rng),
        linear=_with_interval(_cross_validated(values, labels, rng), labels, rng),
        shots=shots,
    )


def balanced_accuracy(truth: Labels, guessed: Labels) -> float:
    """Mean over the classes present of the share that was guessed right."""
    return float(np.mean([(guessed[truth == label] == label).mean() for label in np.unique(truth)]))


def fit_linear(values: NDArray[np.float64], labels: Labels, asked: NDArray[np.float64]) -> Labels:
    """Ridge regression to one column a class, classes weighted alike; the guessed label of each row of `asked`.

    Solved in the space of the images when they are fewer than the dimensions.
    """
    known = np.unique(labels)
    weights = 1 / np.bincount(labels)[labels]
    weights *= len(labels) / weights.sum()
    mean = (weights[:, None] * values).sum(0) / weights.sum()
    scaled = (values - mean) * np.sqrt(weights)[:, None]
    targets = (labels[:, None] == known) - 1 / len(known)
    targets = targets * np.sqrt(weights)[:, None]
    penalty = RIDGE * np.square(scaled).sum() / len(values)
    if len(values) <= values.shape[1]:
        dual = np.linalg.solve(scaled @ scaled.T + penalty * np.eye(len(values)), targets)
        map_ = scaled.T @ dual
    else:
        map_ = np.linalg.solve(scaled.T @ scaled + penalty * np.eye(values.shape[1]), scaled.T @ targets)
    return np.asarray(known[((asked - mean) @ map_).argmax(1)])


def _nearest(values: NDArray[np.float64], labels: Labels) -> Labels:
    squared = np.square(values).sum(1)
    distance = squared[:, None] + squared - 2 * values @ values.T
    np.fill_diagonal(distance, np.inf)
    near = labels[np.argsort(distance, axis=1)[:, : min(NEIGHBOURS, len(values) - 1)]]
    votes = (near[:, :, None] == np.arange(labels.max() + 1)).sum(1)
    # A tie goes to the nearest.
    votes = 2 * votes + (near[:, :1] == np.arange(labels.max() + 1))
    return np.asarray(votes.argmax(1))


def _cross_validated(values: NDArray[np.float64], labels: Labels, rng: np.random.Generator) -> Labels:
    """Guesses of maps fitted on the other folds; each fold has its share of every class."""
    order = np.lexsort((rng.random(len(labels)), labels))
    fold = np.empty(len(labels), np.int64)
    fold[order] = np.arange(len(labels)) % FOLDS
    guessed = np.empty_like(labels)
    for number in range(FOLDS):
        inside = fold == number
        guessed[inside] = fit_linear(values[~inside], labels[~inside], values[inside])
    return guessed


def _few_shot(values: NDArray[np.float64], labels: Labels, shot: int, rng: np.random.Generator) -> Accuracy:
    found = []
    for _ in range(DRAWS):
        shown = np.concatenate([rng.permutation(np.flatnonzero(labels == one))[:shot] for one in np.unique(labels)])
        asked = np.setdiff1d(np.arange(len(labels)), shown)
        guessed = fit_linear(values[shown], labels[shown], values[asked])
        found.append(balanced_accuracy(labels[asked], guessed))
    least, most = np.quantile(found, INTERVAL)
    return Accuracy(float(np.mean(found)), float(least), float(most))


def _with_interval(guessed: Labels, labels: Labels, rng: np.random.Generator) -> Accuracy:
    found = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(labels), len(labels))
        found.append(balanced_accuracy(labels[drawn], guessed[drawn]))
    least, most = np.quantile(found, INTERVAL)
    return Accuracy(balanced_accuracy(labels, guessed), float(least), float(most))
