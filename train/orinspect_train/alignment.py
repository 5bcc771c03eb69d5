"""Did adaptation help? A check without labels or real defects, decided on images that were not trained on.

Held-out good images are compared with copies of them that carry a drawn defect, of three kinds that the pretext never
draws. The score is PaDiM's on the patches, as in the product: on solar cells an adaptation that gains 5 points here by
the pooled embedding's Mahalanobis distance gains 0.2 by PaDiM, and loses 0.2 on real defects. Known weakness: drawn
defects flatter an encoder that was trained on drawn defects, so the encoder must gain LEAST_GAIN on average and gain in
at least two of the three kinds; even then a gain on real defects is not proven.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from orinspect_edge_runtime import metrics
from orinspect_edge_runtime.scorers.padim import Padim
from orinspect_train.probe_defects import PROBE_DEFECTS, Draw

Pixels = NDArray[np.uint8]
PatchesOf = Callable[[Pixels], NDArray[np.float32]]

PROBE_STREAM = 5
MOST_FIT, MOST_HELD_OUT = 384, 96
KINDS_TO_GAIN = 2
# Smaller differences come and go with the draw of the defects.
LEAST_GAIN = 0.01
BATCH = 32


@dataclass(frozen=True)
class Alignment:
    """AUROC of held-out good images against their copies with a drawn defect, by kind of defect."""

    auroc: dict[str, float]

    @property
    def mean(self) -> float:
        """Over the kinds."""
        return sum(self.auroc.values()) / len(self.auroc)


def measure(
    patches_of: PatchesOf, training: Pixels, held_out: Pixels, seed: int, defects: dict[str, Draw] = PROBE_DEFECTS
) -> Alignment:
    """The alignment of an encoder, given as the function from uint8 [N, H, W, 3] to patches float32 [N, P, D]."""
    good = patches_of(training[:MOST_FIT])
    no_embeddings = np.zeros((0, 0), np.float32)
    scorer = Padim()
    arrays = scorer.fit(no_embeddings, good, np.zeros(len(good), np.int64), 1, seed=seed)

    def score(images: Pixels) -> NDArray[np.float32]:
        patches = patches_of(images)
        return scorer.raw_scores(arrays, no_embeddings, patches, np.zeros(len(patches), np.int64))[0]

    held_out = held_out[:MOST_HELD_OUT]
    clean = score(held_out)
    found = {}
    for number, (kind, draw) in enumerate(defects.items()):
        rng = np.random.default_rng([seed, PROBE_STREAM, number])
        defective = score(np.stack([draw(image, rng) for image in held_out]))
        labels = np.repeat([False, True], len(held_out))
        found[kind] = metrics.auroc(labels, np.concatenate([clean, defective]))
    return Alignment(found)


def has_helped(before: Alignment, after: Alignment) -> bool:
    """Whether the adapted encoder is to be kept: better by LEAST_GAIN on average, and in two of the three kinds."""
    gained = sum(after.auroc[kind] > value for kind, value in before.auroc.items())
    return after.mean - before.mean >= LEAST_GAIN and gained >= KINDS_TO_GAIN


def record(before: Alignment, after: Alignment) -> dict[str, Any]:
    """Both figures, as encoder.json holds them."""
    return {
        "measure": "AUROC by PaDiM, held-out good images against copies with a drawn defect",
        "unadapted": before.auroc | {"mean": before.mean},
        "adapted": after.auroc | {"mean": after.mean},
    }


def in_batches(encode: Callable[[torch.Tensor], torch.Tensor]) -> PatchesOf:
    """`encode` maps uint8 tensors [B, H, W, 3] to patches [B, P, D]; the result does so for arrays of any length."""

    def patches_of(images: Pixels) -> NDArray[np.float32]:
        with torch.inference_mode():
            parts = [
                encode(torch.from_numpy(images[i : i + BATCH])).float().cpu() for i in range(0, len(images), BATCH)
            ]
        return np.asarray(torch.cat(parts).numpy(), np.float32)

    return patches_of
