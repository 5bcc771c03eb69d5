"""Did adaptation help, and when did it most? Asked without labels or real defects, of images that were not trained on.

Where damage is the anomaly, held-out good images are compared with copies of them that carry a drawn defect, of three
kinds that the pretext never draws. The score is PaDiM's on the patches where training may change these; where only the
embedding can have changed, it is the Mahalanobis distance of that. Known weakness: drawn defects flatter an encoder that
was trained on drawn defects, so the encoder must gain LEAST_GAIN on average and gain in at least two of the three kinds;
even then a gain on real defects is not proven. Another scorer's AUROC is another measure: figures of two scorers are
never compared.

Where other things are the anomaly, the copies are other things made of the images (other_things.py), and the score is the
mean distance of the embedding to its nearest good ones: methods that learn what a thing is change what the embedding says
of the whole, and the patches little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from orinspect_edge_runtime import metrics
from orinspect_edge_runtime.scorers import Scorer
from orinspect_edge_runtime.scorers.knn import Knn
from orinspect_edge_runtime.scorers.mahalanobis import Mahalanobis
from orinspect_edge_runtime.scorers.padim import Padim
from orinspect_train.bfloat16 import faster_bfloat16
from orinspect_train.config import DAMAGE, OTHER
from orinspect_train.other_things import OTHER_THINGS
from orinspect_train.probe_defects import PROBE_DEFECTS, Draw

if TYPE_CHECKING:
    from orinspect_train.encoder import Encoder
    from orinspect_train.training import Pretraining

Pixels = NDArray[np.uint8]
FeaturesOf = Callable[[Pixels], NDArray[np.float32]]

PROBE_STREAM = 5
MOST_FIT, MOST_HELD_OUT = 384, 96
KINDS_TO_GAIN = 2
# Smaller differences come and go with the draw of the defects.
LEAST_GAIN = 0.01
BATCH = 32


@dataclass(frozen=True)
class Anomalies:
    """What is to be told from good images. measure: in words. kinds: how each is drawn on an image. scorer: by whose
    scores; it looks at the patches if it has a map, else at the embedding."""

    measure: str
    kinds: dict[str, Draw]
    scorer: Scorer


ANOMALIES = {
    DAMAGE: Anomalies(
        "AUROC by PaDiM, held-out good images against copies with a drawn defect", PROBE_DEFECTS, Padim()
    ),
    OTHER: Anomalies("AUROC by kNN, held-out good images against other things made of them", OTHER_THINGS, Knn()),
}
EMBEDDED_DAMAGE = Anomalies(
    "AUROC by Mahalanobis distance of the embedding, held-out good images against copies with a drawn defect",
    PROBE_DEFECTS,
    Mahalanobis(),
)


def anomalies_of(asked: str, encoder: Encoder) -> Anomalies:
    """What a check looks for. asked: DAMAGE or OTHER. encoder: frozen as in the training that is judged."""
    return EMBEDDED_DAMAGE if asked == DAMAGE and not encoder.learns_patches else ANOMALIES[asked]


@dataclass(frozen=True)
class Alignment:
    """AUROC of held-out good images against their altered copies, by kind of anomaly."""

    auroc: dict[str, float]

    @property
    def mean(self) -> float:
        """Over the kinds."""
        return sum(self.auroc.values()) / len(self.auroc)


@dataclass(frozen=True)
class Scores:
    """Scores of n held-out good images, and of their altered copies by kind of anomaly; all float32 [n]."""

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
    features_of: FeaturesOf, training: Pixels, held_out: Pixels, seed: int, anomalies: Anomalies = ANOMALIES[DAMAGE]
) -> Scores:
    """The scores that an encoder gives, itself given as the function from uint8 [N, H, W, 3] to what the scorer looks at:
    patches [N, P, D] or embeddings [N, E]."""
    scorer = anomalies.scorer

    def features(images: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        found, nothing = features_of(images), np.zeros((0, 0), np.float32)
        both = (nothing, found) if scorer.has_map else (found, nothing)
        return *both, np.zeros(len(images), np.int64)

    arrays = scorer.fit(*features(training[:MOST_FIT]), 1, seed=seed)
    held_out = held_out[:MOST_HELD_OUT]
    clean = scorer.raw_scores(arrays, *features(held_out))[0]
    altered = {}
    for number, (kind, draw) in enumerate(anomalies.kinds.items()):
        rng = np.random.default_rng([seed, PROBE_STREAM, number])
        drawn = np.stack([draw(image, rng) for image in held_out])
        altered[kind] = scorer.raw_scores(arrays, *features(drawn))[0]
    return Scores(clean, altered)


def has_helped(before: Alignment, after: Alignment) -> bool:
    """Whether the adapted encoder is to be kept: better by LEAST_GAIN on average, and in two of the three kinds."""
    gained = sum(after.auroc[kind] > value for kind, value in before.auroc.items())
    return after.mean - before.mean >= LEAST_GAIN and gained >= KINDS_TO_GAIN


def best_step(before: Alignment, checks: dict[int, Alignment]) -> int:
    """Of the steps that were checked, the one whose encoder may be kept and has the highest mean; of equals the first."""
    return max(checks, key=lambda step: (has_helped(before, checks[step]), checks[step].mean, -step))


def record(measured: str, before: Alignment, checks: dict[int, Alignment]) -> dict[str, Any]:
    """All figures, as encoder.json holds them. measured: what they are, in words."""
    step = best_step(before, checks)
    return {
        "measure": measured,
        "unadapted": before.auroc | {"mean": before.mean},
        "adapted": checks[step].auroc | {"mean": checks[step].mean},
        "step": step,
        "checks": {str(step): found.mean for step, found in checks.items()},
    }


@dataclass(frozen=True)
class Check:
    """What a run's checks are made of, the same in each. training, held_out: uint8 [n, H, W, 3], as many as are looked
    at. precision: that of the training, the faster one by far on some processors. anomalies: what is asked for."""

    training: Pixels
    held_out: Pixels
    seed: int
    precision: str
    anomalies: Anomalies = ANOMALIES[DAMAGE]

    @property
    def images(self) -> int:
        """How many images one measurement encodes."""
        return len(self.training) + (1 + len(self.anomalies.kinds)) * len(self.held_out)

    def measure(self, module: Pretraining) -> Alignment:
        """The alignment of the encoder as it is now, which is left in evaluation mode."""
        return self.scores(module).alignment

    def scores(self, module: Pretraining) -> Scores:
        """The scores behind `measure`."""
        module.eval()
        encode = module.patches if self.anomalies.scorer.has_map else module.embedding
        with torch.autocast(module.device.type, torch.bfloat16, enabled=self.precision == "bf16"), faster_bfloat16():
            return measure(in_batches(encode), self.training, self.held_out, self.seed, self.anomalies)


def _wins(defective: NDArray[np.float32], clean: NDArray[np.float32]) -> NDArray[np.float64]:
    """[n, n]: 1 where a defective image outscores a clean one, a half where they are equal."""
    return 0.5 * (defective[:, None] > clean) + 0.5 * (defective[:, None] >= clean)


def in_batches(encode: Callable[[torch.Tensor], torch.Tensor]) -> FeaturesOf:
    """`encode` maps uint8 tensors [B, H, W, 3] to features [B, ...]; the result does so for arrays of any length."""

    def features_of(images: Pixels) -> NDArray[np.float32]:
        with torch.inference_mode():
            parts = [
                encode(torch.from_numpy(images[i : i + BATCH])).float().cpu() for i in range(0, len(images), BATCH)
            ]
        return np.asarray(torch.cat(parts).numpy(), np.float32)

    return features_of
