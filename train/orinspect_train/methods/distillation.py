"""Distillation (Hinton et al. 2015, arXiv 1503.02531; of features Romero et al. 2015, arXiv 1412.6550).

The encoder learns to give the embedding and the patch features of a larger teacher, through one linear map each. On the
user's own images this needs no labels, and the small encoder takes over what the large one knows about them. The teacher
is the user's own file or run: nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from orinspect_edge_runtime.errors import ConfigError
from orinspect_edge_runtime.schema import within
from orinspect_train.augment import Augmenter, normalise
from orinspect_train.encoder import Encoder, normalisation
from orinspect_train.methods import Batch, Method, Normalise, Setting
from orinspect_train.run import load_encoder, load_imagenet, load_weights


@dataclass(frozen=True)
class Options:
    """weights: of the teacher: a .safetensors file, a run, or `imagenet` for an encoder that an installed package
    brings. teacher: its timm name (a run knows its own). patch_weight: of the patches' loss, the rest is the images'."""

    teacher: str = ""
    weights: str = ""
    patch_weight: float = 0.5

    def __post_init__(self) -> None:
        within(self, {"patch_weight": (0, 1)})


@dataclass(frozen=True)
class Teacher:
    """A fixed encoder and its own normalisation. No module, so that checkpoints do not repeat its weights."""

    encoder: Encoder
    mean: Tensor
    std: Tensor

    def features(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings float32 [B, E] and patch features float32 [B, D, rows, columns] of uint8 [B, H, W, 3]."""
        device = pixels.device
        images = normalise(pixels, self.mean.to(device), self.std.to(device))
        with torch.no_grad():
            stages = self.encoder.to(device).stages(images)
            return self.encoder.pool_embedding(stages).float(), self.encoder.patch_map(stages).float()


def open_method(encoder: Encoder, setting: Setting, options: Options) -> Method:
    """The method for an encoder. Raises ConfigError without a teacher, InputError for weights that do not fit it."""
    teacher = open_teacher(options, setting.size)
    heads = nn.ModuleDict(
        {
            "image": nn.Linear(encoder.embedding_dim, teacher.encoder.embedding_dim),
            "patch": nn.Conv2d(encoder.place_dim, teacher.encoder.patch_dim, 1),
        }
    )
    loss = partial(loss_of, encoder, heads, teacher, options.patch_weight)
    return Method(partial(render, augmenter=setting.augmenter), heads, loss)


def open_teacher(options: Options, size: int) -> Teacher:
    """The teacher in evaluation mode, for square images of `size` pixels."""
    weights = Path(options.weights)
    if not options.weights or (not options.teacher and not weights.is_dir()):
        raise ConfigError('[distillation] needs  teacher = "TIMM MODEL"  and  weights = "FILE.safetensors", or a run')
    if weights.is_dir():
        encoder, record = load_encoder(weights)
        mean, std = record["mean"], record["std"]
    else:
        encoder = Encoder(options.teacher, size)
        load_imagenet(encoder) if options.weights == "imagenet" else load_weights(encoder, weights)
        mean, std = normalisation(options.teacher)
    return Teacher(encoder.requires_grad_(False).eval(), torch.tensor(mean), torch.tensor(std))


def loss_of(
    encoder: Encoder,
    heads: nn.ModuleDict,
    teacher: Teacher,
    patch_weight: float,
    normalise: Normalise,
    batch: Batch,
    done: float,
) -> tuple[Tensor, Tensor]:
    """1 - cosine to the teacher's features, of images and of patches, and the embeddings float32 [B, E]."""
    stages = encoder.stages(normalise(batch["images"]))
    embedding = encoder.pool_embedding(stages).float()
    wanted, wanted_patches = teacher.features(batch["images"])
    patches = heads["patch"](encoder.place_map(stages).float())
    if patches.shape[2:] != wanted_patches.shape[2:]:
        wanted_patches = functional.interpolate(wanted_patches, patches.shape[2:], mode="bilinear", antialias=True)
    of_images = 1 - functional.cosine_similarity(heads["image"](embedding).float(), wanted).mean()
    of_patches = 1 - functional.cosine_similarity(patches.float(), wanted_patches, dim=1).mean()
    return (1 - patch_weight) * of_images + patch_weight * of_patches, embedding


def render(pixels: NDArray[np.uint8], rng: np.random.Generator, augmenter: Augmenter) -> Batch:
    """A view of each image: `images` uint8 [B, H, W, 3]."""
    return {"images": augmenter.view(pixels, rng)}
