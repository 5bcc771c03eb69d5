"""Name what was done to an image: what the methods with a made-up label share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from orinspect_train.encoder import Encoder
from orinspect_train.methods import Batch, Normalise
from orinspect_train.methods.two_views import embed


def classifier(input_dim: int, hidden_dim: int, classes: int) -> nn.Module:
    """Two layers from an embedding to the logits of the classes."""
    return nn.Sequential(nn.Linear(input_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, classes))


def loss_of(
    encoder: Encoder, head: nn.Module, normalise: Normalise, batch: Batch, done: float
) -> tuple[Tensor, Tensor]:
    """Cross entropy of the labels that `images` [B, n, H, W, 3] have by their place, 0 to n - 1; embeddings [B n, E]."""
    images = batch["images"]
    embedding = embed(encoder, normalise, images.flatten(0, 1))
    return naming_loss(head, embedding, images.shape[1]), embedding


def naming_loss(head: nn.Module, embedding: Tensor, classes: int) -> Tensor:
    """Cross entropy of a head's logits of embeddings [N, E], whose labels are 0 to classes - 1 again and again."""
    labels = torch.arange(classes, device=embedding.device).repeat(len(embedding) // classes)
    return functional.cross_entropy(head(embedding).float(), labels)
