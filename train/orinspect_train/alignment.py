"""Did adaptation help, and when did it most? Asked without labels or real defects, of images that were not trained on.

Held-out good images are compared with copies of them that carry a drawn defect, of three kinds that the pretext never
draws. The score is PaDiM's on the patches, as in the product: on solar cells an adaptation that gains 5 points here by
the pooled embedding's Mahalanobis distance gains 0.2 by PaDiM, and loses 0.2 on real defects. Known weakness: drawn
defects flatter an encoder that was trained on drawn defects, so the encoder must gain LEAST_GAIN on average and gain in
at least two of the three kinds; even then a gain on real defects is not proven. Another scorer's AUROC is another
measure: figures of two scorers are never compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from orinspect_edge_runtime import metrics
from orinspect_edge_runtime.scorers.padim import Padim
from orinspect_train.probe_defects import PROBE_DEFECTS, Draw

if TYPE_CHECKING:
    from orinspect_train.training import Pretraining

Pixels = NDArray[np.uint8]
PatchesOf = Callable[[Pixels], NDArray[np.float32]]

MEASURE = "AUROC by PaDiM, held-out good images against copies with a drawn defect"
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


@dataclass(frozen=True)
class Scores:
    """PaDiM's scores of n held-out good images, and of their copies with a drawn defect by kind; all float32 [n]."""

    clean: NDArray[np.float32]
    defective: dict[str, NDArray[np.float32]]

    @property
    def alignment(self) -> Alignment:
        """What they say of the encoder."""
        labels = np.repeat([False, True], len(self.clean))
        return Alignment(
            {kind: metrics.auroc(labels, np.concatenate([self.clean, found])) for kind, found in self.defective.items()}
        )

    def resampled(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """The mean AUROC had image i been drawn counts[r, i] times, float64 [R]; each row of counts sums to n.

        A copy nearly always outscores its own image, and draws with replacement would count that pair too often: the
        difference from the mean is that of all other pairs.
        """
        wins = np.mean([_wins(found, self.clean) for found in self.defective.values()], axis=0)
        np.fill_diagonal(wins, 0)
        pairs = counts.sum(axis=1) ** 2 - np.square(counts).sum(axis=1)
        drawn = ((counts @ wins) * counts).sum(axis=1) / np.maximum(pairs, 1)
        return np.asarray(self.alignment.mean + drawn - wins.sum() / (wins.size - len(wins)))


def measure(
    patches_of: PatchesOf, training: Pixels, held_out: Pixels, seed: int, defects: dict[str, Draw] = PROBE_DEFECTS
) -> Scores:
    """The scores that an encoder gives, itself given as the function from uint8 [N, H, W, 3] to patches [N, P, D]."""
    good = patches_of(training[:MOST_FIT])
    no_embeddings = np.zeros((0, 0), np.float32)
    scorer = Padim()
    arrays = scorer.fit(no_embeddings, good, np.zeros(len(good), np.int64), 1, seed=seed)

    def score(images: Pixels) -> NDArray[np.float32]:
        patches = patches_of(images)
        return scorer.raw_scores(arrays, no_embeddings, patches, np.zeros(len(patches), np.int64))[0]

    held_out = held_out[:MOST_HELD_OUT]
    defective = {}
    for number, (kind, draw) in enumerate(defects.items()):
        rng = np.random.default_rng([seed, PROBE_STREAM, number])
        defective[kind] = score(np.stack([draw(image, rng) for image in held_out]))
    return Scores(score(held_out), defective)


def has_helped(before: Alignment, after: Alignment) -> bool:
    """Whether the adapted encoder is to be kept: better by LEAST_GAIN on average, and in two of the three kinds."""
    gained = sum(after.auroc[kind] > value for kind, value in before.auroc.items())
    return after.mean - before.mean >= LEAST_GAIN and gained >= KINDS_TO_GAIN


def best_step(before: Alignment, checks: dict[int, Alignment]) -> int:
    """Of the steps that were checked, the one whose encoder may be kept and has the highest mean; of equals the first."""
    return max(checks, key=lambda step: (has_helped(before, checks[step]), checks[step].mean, -step))


def record(before: Alignment, checks: dict[int, Alignment]) -> dict[str, Any]:
    """All figures, as encoder.json holds them."""
    step = best_step(before, checks)
    return {
        "measure": MEASURE,
        "unadapted": before.auroc | {"mean": before.mean},
        "adapted": checks[step].auroc | {"mean": checks[step].mean},
        "step": step,
        "checks": {str(step): found.mean for step, found in checks.items()},
    }


@dataclass(frozen=True)
class Check:
    """What a run's checks are made of, the same in each. training, held_out: uint8 [n, H, W, 3], as many as are looked
    at. precision: that of the training, the faster one by far on some processors."""

    training: Pixels
    held_out: Pixels
    seed: int
    precision: str

    @property
    def images(self) -> int:
        """How many images one measurement encodes."""
        return len(self.training) + (1 + len(PROBE_DEFECTS)) * len(self.held_out)

    def measure(self, module: Pretraining) -> Alignment:
        """The alignment of the encoder as it is now, which is left in evaluation mode."""
        return self.scores(module).alignment

    def scores(self, module: Pretraining) -> Scores:
        """The scores behind `measure`."""
        module.eval()
        with torch.autocast(module.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return measure(in_batches(module.patches), self.training, self.held_out, self.seed)


def _wins(defective: NDArray[np.float32], clean: NDArray[np.float32]) -> NDArray[np.float64]:
    """[n, n]: 1 where a defective image outscores a clean one, a half where they are equal."""
    return 0.5 * (defective[:, None] > clean) + 0.5 * (defective[:, None] >= clean)


def in_batches(encode: Callable[[torch.Tensor], torch.Tensor]) -> PatchesOf:
    """`encode` maps uint8 tensors [B, H, W, 3] to patches [B, P, D]; the result does so for arrays of any length."""

    def patches_of(images: Pixels) -> NDArray[np.float32]:
        with torch.inference_mode():
            parts = [
                encode(torch.from_numpy(images[i : i + BATCH])).float().cpu() for i in range(0, len(images), BATCH)
            ]
        return np.asarray(torch.cat(parts).numpy(), np.float32)

    return patches_of
