"""Did adaptation help? A check without labels or real defects, decided on images that were not trained on.

Held-out good images are compared with copies of them that carry a drawn defect, of three kinds that the pretext never
draws. The score is the pooled embedding's Mahalanobis distance from the training images. Known weakness: drawn defects
flatter an encoder that was trained on drawn defects, so this can refuse a harmful adaptation but cannot promise a gain
on real ones; the encoder must gain on average and in at least two of the three kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from orinspect_edge_runtime import metrics
from orinspect_edge_runtime.scorers.mahalanobis import Mahalanobis
from orinspect_train.probe_defects import PROBE_DEFECTS

Pixels = NDArray[np.uint8]
Embed = Callable[[Pixels], NDArray[np.float32]]

PROBE_STREAM = 5
MOST_FIT, MOST_HELD_OUT = 384, 96
KINDS_TO_GAIN = 2
BATCH = 32


@dataclass(frozen=True)
class Alignment:
    """AUROC of held-out good images against their copies with a drawn defect, by kind of defect."""

    auroc: dict[str, float]

    @property
    def mean(self) -> float:
        """Over the kinds."""
        return sum(self.auroc.values()) / len(self.auroc)


def measure(embed: Embed, training: Pixels, held_out: Pixels, seed: int) -> Alignment:
    """The alignment of an encoder, given as the function from uint8 [N, H, W, 3] to embeddings float32 [N, E]."""
    good = embed(training[:MOST_FIT])
    zeros = np.zeros(len(good), np.int64)
    no_patches = np.zeros((0, 0, 0), np.float32)
    scorer = Mahalanobis()
    arrays = scorer.fit(good, no_patches, zeros, 1)

    def score(images: Pixels) -> NDArray[np.float32]:
        embeddings = embed(images)
        return scorer.raw_scores(arrays, embeddings, no_patches, np.zeros(len(embeddings), np.int64))[0]

    held_out = held_out[:MOST_HELD_OUT]
    clean = score(held_out)
    found = {}
    for number, (kind, draw) in enumerate(PROBE_DEFECTS.items()):
        rng = np.random.default_rng([seed, PROBE_STREAM, number])
        defective = score(np.stack([draw(image, rng) for image in held_out]))
        labels = np.repeat([False, True], len(held_out))
        found[kind] = metrics.auroc(labels, np.concatenate([clean, defective]))
    return Alignment(found)


def has_helped(before: Alignment, after: Alignment) -> bool:
    """Whether the adapted encoder is to be kept: better on average, and in at least two of the three kinds."""
    gained = sum(after.auroc[kind] > value for kind, value in before.auroc.items())
    return after.mean > before.mean and gained >= KINDS_TO_GAIN


def record(before: Alignment, after: Alignment) -> dict[str, Any]:
    """Both figures, as encoder.json holds them."""
    return {
        "measure": "AUROC, held-out good images against copies with a drawn defect",
        "unadapted": before.auroc | {"mean": before.mean},
        "adapted": after.auroc | {"mean": after.mean},
    }


def embedder(encode: Callable[[torch.Tensor], torch.Tensor]) -> Embed:
    """`encode` maps uint8 tensors [B, H, W, 3] to embeddings [B, E]; the result does so for arrays of any length."""

    def embed(images: Pixels) -> NDArray[np.float32]:
        with torch.inference_mode():
            parts = [
                encode(torch.from_numpy(images[i : i + BATCH])).float().cpu() for i in range(0, len(images), BATCH)
            ]
        return np.asarray(torch.cat(parts).numpy(), np.float32)

    return embed
