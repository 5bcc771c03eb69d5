"""`orinspect probe`: what an encoder makes of some images, without labels, and with a few.

alignment, uniformity: Wang & Isola 2020, arXiv 2005.10242, on unit-length embeddings. Both are low for a good encoder;
a low alignment alone may be a collapse, which effective_rank and embedding_std tell (health.py). separation: how well
PaDiM tells held-out images from copies of them with a drawn defect (alignment.py says what that is worth).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from orinspect_train import alignment, health, policies
from orinspect_train.augment import Augmenter, normalise
from orinspect_train.config import DAMAGE, PretrainConfig, read_config
from orinspect_train.encoder import Encoder
from orinspect_train.heap import kept_memory
from orinspect_train.images import ImageSet, read_images
from orinspect_train.label_probe import LabelProbe, probe_labels, read_labelled
from orinspect_train.probe_defects import ALL_DEFECTS
from orinspect_train.progress import Report
from orinspect_train.run import load_encoder
from orinspect_train.run_folder import CONFIG

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

VIEW_STREAM = 9
# More would change the figures little and take minutes.
MOST_IMAGES = 512
MOST_PAIRS = 256


@dataclass(frozen=True)
class Probe:
    """images: number looked at. policy: of the two views that alignment compares. embedding_std, effective_rank: see
    Health. alignment: mean squared distance of two views of an image, 0 to 4. uniformity: log of the mean of exp(-2 d^2)
    over pairs of images, -4 (evenly spread) to 0 (one point). separation: AUROC by kind of drawn defect, of the patches
    by PaDiM; embedded_separation: of the embedding by its Mahalanobis distance. labels: what a few labels add, if there
    were any."""

    run: str
    images: int
    policy: str
    embedding_std: float
    effective_rank: float
    alignment: float
    uniformity: float
    separation: dict[str, float]
    embedded_separation: dict[str, float]
    labels: LabelProbe | None


@kept_memory()
def probe(run: Path, data: Path, labels: Path | None = None, report: Report = lambda stage, share, text: None) -> Probe:
    """Judge the encoder of a finished run on the good images below `data`, and on the classes below `labels`.

    labels: a folder with one subfolder a class. Raises InputError (run, images, labels).
    """
    encoder, record = load_encoder(run)
    config = read_config(run / CONFIG)
    labelled = None if labels is None else read_labelled(labels, config)
    images = read_images(data, _few(config), lambda share: report("images", share, ""))
    view = Viewer(encoder, record["mean"], record["std"])
    report("separation", 0.0, "")
    split = images.split(config.held_out)
    patches, embedded = (
        alignment.measure(
            features_of, split.training, split.held_out, config.seed, replace(drawn, kinds=ALL_DEFECTS)
        ).alignment
        for features_of, drawn in (
            (view.patches, alignment.ANOMALIES[DAMAGE]), (view.embeddings, alignment.EMBEDDED_DAMAGE)
        )
    )  # fmt: skip
    report("separation", 1.0, f"mean AUROC {patches.mean:.3f} by patches, {embedded.mean:.3f} by the embedding")
    embeddings = view.embeddings(images.pixels)
    signs = health.examine(torch.from_numpy(embeddings))
    policy, near = _alignment(view, images, config)
    found = None if labelled is None else probe_labels(view.embeddings, labelled, config.seed)
    return Probe(
        str(run), len(images.pixels), policy, signs.embedding_std, signs.effective_rank, near,
        uniformity(embeddings), patches.auroc, embedded.auroc, found,
    )  # fmt: skip


def uniformity(embeddings: Floats) -> float:
    """Log of the mean of exp(-2 d^2) over all pairs of different rows of float [N, E], brought to unit length."""
    unit = torch.nn.functional.normalize(torch.from_numpy(embeddings).double(), dim=1)
    squared = torch.pdist(unit).square()
    return float(torch.logsumexp(-2 * squared, 0) - np.log(len(squared)))


class Viewer:
    """An encoder and the normalisation of its images. mean, std: per channel, for pixels in 0..1."""

    def __init__(self, encoder: Encoder, mean: list[float], std: list[float]) -> None:
        self._encoder = encoder.eval()
        self._mean, self._std = torch.tensor(mean), torch.tensor(std)

    def patches(self, pixels: Pixels) -> Floats:
        """float32 [N, P, D] of uint8 [N, H, W, 3]."""
        return alignment.in_batches(lambda images: self._encoder(self._normalised(images))[1])(pixels)

    def embeddings(self, pixels: Pixels) -> Floats:
        """float32 [N, E] of uint8 [N, H, W, 3]."""
        return alignment.in_batches(lambda images: self._encoder(self._normalised(images))[0])(pixels)

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        return normalise(pixels, self._mean, self._std)


def _few(config: PretrainConfig) -> PretrainConfig:
    return replace(config, max_images=min(config.max_images, MOST_IMAGES))


def _alignment(view: Viewer, images: ImageSet, config: PretrainConfig) -> tuple[str, float]:
    """The policy, and the mean squared distance of the unit embeddings of two views of an image."""
    auto = config.policy == policies.AUTO
    name = policies.choose_policy(images.pixels, gray=images.gray) if auto else config.policy
    augmenter, rng = Augmenter(images.gray, policies.POLICIES[name]), np.random.default_rng([config.seed, VIEW_STREAM])
    some = images.pixels[:MOST_PAIRS]
    first, second = (
        torch.nn.functional.normalize(torch.from_numpy(view.embeddings(augmenter.view(some, rng))), dim=1)
        for _ in range(2)
    )
    return name, float((first - second).square().sum(1).mean())
