"""DINO (Caron et al. 2021, arXiv 2104.14294): name every view as a teacher that follows slowly names the other ones.

The teacher sees whole views only, the student also windows of them, so it learns to tell the whole from a part. What
keeps it from collapse is the centring and the sharper temperature of the teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from lightly.loss import DINOLoss
from lightly.models.modules.heads import ProjectionHead
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from orinspect_edge_runtime.schema import within
from orinspect_train.augment import Augmenter
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Batch, Method, Normalise, Setting, two_views
from orinspect_train.methods.teacher import Teacher, rising
from orinspect_train.methods.two_views import both, embed


@dataclass(frozen=True)
class Options:
    """temperature, teacher_temperature: of the softmax of student and teacher. momentum: share of itself that the teacher
    keeps in a step at first; it rises to 1. centre_momentum: the same of the centre. windows: of half the size, an image.
    prototypes: number of names. hidden_dim, bottleneck_dim: of the head."""

    temperature: float = 0.1
    teacher_temperature: float = 0.04
    momentum: float = 0.99
    centre_momentum: float = 0.9
    windows: int = 2
    prototypes: int = 1024
    hidden_dim: int = 512
    bottleneck_dim: int = 128

    def __post_init__(self) -> None:
        within(self, dict.fromkeys(("temperature", "teacher_temperature"), (0.01, 10.0)))
        within(self, dict.fromkeys(("momentum", "centre_momentum"), (0.0, 1.0)))
        within(self, {"windows": (0, 16)})
        within(self, dict.fromkeys(("prototypes", "hidden_dim", "bottleneck_dim"), (2.0, 262_144.0)))


class Head(nn.Module):
    """Three layers to a unit vector, and its cosine to every prototype.

    As lightly's DINOProjectionHead with a normalised last layer, whose weight-norm hook can be neither copied nor sent
    to another process.
    """

    def __init__(self, input_dim: int, options: Options) -> None:
        super().__init__()
        hidden, bottleneck = options.hidden_dim, options.bottleneck_dim
        blocks = [
            (input_dim, hidden, None, nn.GELU()),
            (hidden, hidden, None, nn.GELU()),
            (hidden, bottleneck, None, None),
        ]
        self.layers = ProjectionHead(blocks)
        self.prototypes = nn.Parameter(torch.randn(options.prototypes, bottleneck))

    def forward(self, embedding: Tensor) -> Tensor:
        """Cosines [N, prototypes] of [N, E]."""
        unit = functional.normalize(self.layers(embedding).float(), dim=1)
        return functional.linear(unit, functional.normalize(self.prototypes, dim=1))


class Heads(nn.Module):
    """The head, the teacher of encoder and head, and the criterion, which holds the centre."""

    def __init__(self, encoder: Encoder, options: Options) -> None:
        super().__init__()
        self.head = Head(encoder.embedding_dim, options)
        self.teacher = Teacher(encoder, self.head)
        self.criterion = DINOLoss(
            options.prototypes,
            teacher_temp=options.teacher_temperature,
            student_temp=options.temperature,
            center_momentum=options.centre_momentum,
        )


def open_method(encoder: Encoder, setting: Setting, options: Options) -> Method:
    """The method for an encoder; over several devices the centre is that of all their images."""
    heads = Heads(encoder, options)
    return Method(
        partial(render, augmenter=setting.augmenter, windows=options.windows),
        heads,
        partial(loss_of, encoder, heads, options.momentum),
    )


def loss_of(
    encoder: Encoder, heads: Heads, momentum: float, normalise: Normalise, batch: Batch, done: float
) -> tuple[Tensor, Tensor]:
    """Cross entropy of the student's names against the teacher's, and the embeddings float32 [2 B, E]."""
    heads.teacher.follow(encoder, heads.head, momentum=rising(momentum, done))
    (teacher_head,) = heads.teacher.heads
    views = both(batch)
    embedding = embed(encoder, normalise, views)
    named = list(heads.head(embedding).chunk(2))
    if "windows" in batch:
        named += _name_windows(encoder, heads.head, normalise, batch["windows"])
    with torch.no_grad():
        targets = list(teacher_head(embed(heads.teacher.encoder, normalise, views)).chunk(2))
    value: Tensor = heads.criterion(targets, named)
    return value, embedding


def render(pixels: NDArray[np.uint8], rng: np.random.Generator, augmenter: Augmenter, windows: int) -> Batch:
    """Two views of each image, and `windows` uint8 [B, windows, H / 2, W / 2, 3] cut from further ones."""
    batch = two_views.render(pixels, rng, augmenter)
    if windows:
        cut = [_window(augmenter.view(pixels, rng), rng) for _ in range(windows)]
        batch["windows"] = np.stack(cut, axis=1)
    return batch


def _window(views: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random half of the height and width of each view."""
    tall, wide = views.shape[1] // 2, views.shape[2] // 2
    corners = rng.integers(0, (tall + 1, wide + 1), (len(views), 2))
    return np.stack(
        [view[top : top + tall, left : left + wide] for view, (top, left) in zip(views, corners, strict=True)]
    )


def _name_windows(encoder: Encoder, head: Head, normalise: Normalise, windows: Tensor) -> list[Tensor]:
    """The student's cosines [B, prototypes] of each window of uint8 [B, windows, H, W, 3]."""
    batch, count = windows.shape[:2]
    images = encoder.sized(normalise(windows.flatten(0, 1)))
    embedding = encoder.pool_embedding(encoder.stages(images)).float()
    return list(head(embedding).view(batch, count, -1).unbind(1))
