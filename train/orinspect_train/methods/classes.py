"""Name what was done to an image: what the methods with a made-up label share."""

from __future__ import annotations

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
    batch_size, classes = images.shape[:2]
    embedding = embed(encoder, normalise, images.flatten(0, 1))
    labels = images.new_tensor(range(classes)).long().repeat(batch_size)
    return functional.cross_entropy(head(embedding).float(), labels), embedding
