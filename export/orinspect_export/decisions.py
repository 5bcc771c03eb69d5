"""Decisions: does another precision of an encoder judge images as float32 does?

Every precision scores the same images with a memory bank fitted through its own graph, as its recipes will be, and
sets its own threshold by the same rule. Compared are the order of the scores, the verdicts and, where images are
labelled, the AUROC.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.golden import least_cosine
from orinspect_edge_runtime.metrics import auroc, spearman
from orinspect_edge_runtime.scorers.patchcore import bank_columns, nearest_distances
from orinspect_edge_runtime.whitening import fit_whitening
from orinspect_export.activations import Frames, activation_values

if TYPE_CHECKING:
    import onnx

BANK_ROWS = 1000
# The verdicts compared are those at the threshold that lets this share of the images pass.
PASSED = 0.95
FEATURES = ["embedding", "patches"]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Budget:
    """What a precision may change. min_rank_correlation, max_flips (share of the verdicts): without labels.

    max_auroc_drop: in points of AUROC, with labels, instead of the two.
    """

    min_rank_correlation: float = 0.999
    max_flips: float = 0.001
    max_auroc_drop: float = 0.2


@dataclass(frozen=True)
class Agreement:
    """A precision's decisions against float32's.

    score_rank_correlation: Spearman's; None where all scores are equal. verdict_flips: share of verdicts that differ.
    score_difference_sd: root mean square, in standard deviations of the float32 scores. least_cosine: of the
    embeddings. auroc: of the precision, and auroc_drop in points (positive: worse), with labels only. images: how many
    were scored.
    """

    score_rank_correlation: float | None
    verdict_flips: float
    score_difference_sd: float
    least_cosine: float
    images: int
    auroc: float | None = None
    auroc_drop: float | None = None

    def within(self, budget: Budget) -> bool:
        """Whether the budget is met; how far the embeddings turn matters only by what it does to the scores.

        One swap of neighbours in the order is always allowed, which at the threshold flips two verdicts: few images
        show no less.
        """
        if self.auroc_drop is not None:
            return self.auroc_drop <= budget.max_auroc_drop
        one_swap = 1 - 12 / max(self.images**3 - self.images, 12)
        least = min(budget.min_rank_correlation, one_swap)
        ordered = self.score_rank_correlation is not None and self.score_rank_correlation >= least
        return ordered and self.verdict_flips <= max(budget.max_flips, 2 / self.images)


class Judge:
    """Compares graphs with a float32 one on the same images, by patches (PatchCore) and by embeddings (kNN).

    frames: uint8 [N, H, W, 3]. With labels (bool [N], True: defective) they are scored by a memory bank of `known`,
    uint8 [M, H, W, 3]. Without, each half by a memory bank of the other one, and once more with a patch pasted in: good
    images alone differ so little that their order says nothing.
    """

    def __init__(
        self,
        exact: onnx.ModelProto,
        frames: Frames,
        *,
        labels: NDArray[np.bool_] | None = None,
        known: Frames | None = None,
    ) -> None:
        self._labels, self._known = labels, known
        self._frames = frames if known is not None else np.concatenate([frames, with_pasted_patches(frames)])
        self._defective = labels if labels is not None else np.arange(len(self._frames)) >= len(frames)
        self._features = features_of(exact, self._frames)
        self._exact = self._scores(exact, self._features)

    def agreement(self, model: onnx.ModelProto) -> Agreement:
        """Score the images by another graph and compare; of the two scorers the one that agrees less counts."""
        features = features_of(model, self._frames)
        scores = self._scores(model, features)
        cosine = least_cosine(features["embedding"], self._features["embedding"])
        found = [self._compare(self._exact[by], scores[by], cosine) for by in scores]
        return worse(*found)

    def _scores(self, model: onnx.ModelProto, features: dict[str, Floats]) -> dict[str, Floats]:
        if self._known is None:
            return {by: cross_scores(values, DISTANCES[by]) for by, values in features.items()}
        known = features_of(model, self._known)
        return {by: DISTANCES[by](known[by], values).max(axis=1) for by, values in features.items()}

    def _compare(self, exact: Floats, scores: Floats, cosine: float) -> Agreement:
        order = spearman(scores, exact) if len(scores) > 1 else math.nan
        flips = _verdicts(scores, self._defective) != _verdicts(exact, self._defective)
        difference = float(np.sqrt(np.mean((scores - exact) ** 2))) / max(float(exact.std()), 1e-12)
        ours = drop = None
        if self._labels is not None:
            # A graph that overflows separates nothing.
            ours = auroc(self._labels, scores) if np.isfinite(scores).all() else 0.0
            drop = 100 * (auroc(self._labels, exact) - ours)
        rank = None if math.isnan(order) else order
        return Agreement(rank, float(flips.mean()), difference, cosine, len(scores), ours, drop)


def _verdicts(scores: Floats, defective: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which scores are above the threshold that 95 % of the good images pass."""
    above: NDArray[np.bool_] = scores > np.quantile(scores[~defective], PASSED)
    return above


def worse(first: Agreement, second: Agreement) -> Agreement:
    """The larger deviation of the two, figure by figure."""
    ranks = (first.score_rank_correlation, second.score_rank_correlation)
    lower = first if (first.auroc_drop or 0.0) >= (second.auroc_drop or 0.0) else second
    return Agreement(
        None if None in ranks else min(rank for rank in ranks if rank is not None),
        max(first.verdict_flips, second.verdict_flips),
        max(first.score_difference_sd, second.score_difference_sd),
        min(first.least_cosine, second.least_cosine),
        first.images,
        lower.auroc,
        lower.auroc_drop,
    )


def with_pasted_patches(frames: Frames, seed: int = 0) -> Frames:
    """The frames [N, H, W, 3] with a rectangle of the next one somewhere in each: CutPaste (arXiv 2104.04015)."""
    rng = np.random.default_rng(seed)
    pasted: Frames = frames.copy()
    height, width = frames.shape[1:3]
    for index, donor in enumerate(np.roll(frames, 1, axis=0)):
        h, w = (max(int(rng.uniform(0.06, 0.3) * side), 1) for side in (height, width))
        (y, from_y), (x, from_x) = rng.integers(0, height - h + 1, 2), rng.integers(0, width - w + 1, 2)
        pasted[index, y : y + h, x : x + w] = donor[from_y : from_y + h, from_x : from_x + w]
    return pasted


def features_of(model: onnx.ModelProto, frames: Frames) -> dict[str, Floats]:
    """`embedding` [N, E] and `patches` [N, P, D] of an encoder's graph."""
    values = list(activation_values(model, FEATURES, frames))
    return {name: np.concatenate([value[name] for value in values]) for name in FEATURES}


def cross_scores(features: Floats, distances: Callable[[Floats, Floats], Floats]) -> Floats:
    """Scores [2 N] of N images and their N altered copies behind them: each half by a memory bank of the other one.

    The banks are of the images as they are.
    """
    count = len(features) // 2
    in_first = np.arange(count) < count // 2
    scores = np.empty(2 * count, np.float32)
    for half in (in_first, ~in_first):
        scored = np.concatenate([half, half])
        scores[scored] = distances(features[:count][~half], features[scored]).max(axis=1)
    return scores


def embedding_distances(known: Floats, embedding: Floats) -> Floats:
    """Distances [N, 1] of embeddings [N, E] to the nearest of the known ones [M, E]."""
    return np.stack([np.linalg.norm(known - one, axis=1).min(keepdims=True) for one in embedding])


def patch_distances(known: Floats, patches: Floats) -> Floats:
    """Distances [N, P] of patches [N, P, D] to their nearest neighbours in a memory bank of `known` [M, P, D].

    The bank's rows are drawn by image and place, the same ones in every precision: a coreset would pick others after
    the smallest change, and the figures would tell of its picks.
    """
    rows = known.reshape(-1, known.shape[2])
    drawn = np.random.default_rng(0).permutation(len(rows))[:BANK_ROWS]
    whitening = fit_whitening([rows])
    bank = bank_columns(whitening(rows[drawn]), np.zeros(len(drawn), int), 1)
    onehot = np.ones((1, 1), np.float32)
    return np.concatenate([nearest_distances(whitening(image[None]), onehot, bank) for image in patches])


DISTANCES = {"embedding": embedding_distances, "patches": patch_distances}
