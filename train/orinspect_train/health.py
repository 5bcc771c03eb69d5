"""Signs of collapse: an encoder that maps every image to one point, or to one line, has learnt nothing.

effective_rank: exp of the entropy of the singular values (Roy & Vetterli 2007), as Garrido et al. 2023 (RankMe, arXiv
2210.02885) use it to watch self-supervised training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from orinspect_edge_runtime.errors import CheckFailed

LEAST_STD = 0.01
LEAST_RANK = 1.1
# Signs in so many checks in a row are no accident.
PATIENCE = 3
# More tell nothing new of a collapse.
MOST_ROWS = 256


@dataclass(frozen=True)
class Health:
    """embedding_std: mean deviation of a dimension of the unit-length embeddings, as a share of 1/sqrt(E) (that of
    points spread evenly over the sphere). effective_rank: how many directions the embeddings vary in, at least 1."""

    embedding_std: float
    effective_rank: float

    @property
    def collapsed(self) -> bool:
        """Whether all embeddings lie in one point or on one line."""
        return self.embedding_std < LEAST_STD or self.effective_rank < LEAST_RANK


def examine(embeddings: Tensor) -> Health:
    """The health of a batch of embeddings, float [B, E] with B >= 2; of a large one, of its first MOST_ROWS."""
    values = embeddings[:MOST_ROWS].detach().double().cpu()
    unit = torch.nn.functional.normalize(values, dim=1)
    std = unit.std(0, correction=0).mean().item() * values.shape[1] ** 0.5
    centred = unit - unit.mean(0)
    # By the Gram matrix: the singular values of a wide matrix themselves would take as long as a training step.
    share = torch.linalg.eigvalsh(centred @ centred.T).clamp(min=0).sqrt()
    total = share.sum()
    if not total > 0:
        return Health(std, 1.0)
    share = share / total
    entropy = -torch.special.xlogy(share, share).sum()
    return Health(std, entropy.exp().item())


class Watch:
    """Stops a run that has lost its way: raises CheckFailed saying why and what to try."""

    def __init__(self, grace_steps: int) -> None:
        self.grace_steps, self.signs = grace_steps, 0

    def check_loss(self, step: int, loss: float) -> None:
        """Raise when the loss is no number."""
        if not torch.isfinite(torch.tensor(loss)):
            raise CheckFailed(f'step {step}: the loss is {loss}; lower learning_rate, or set precision = "fp32"')

    def check_health(self, step: int, health: Health) -> None:
        """Raise after `PATIENCE` signs of collapse in a row; the first steps are let pass."""
        self.signs = self.signs + 1 if health.collapsed and step >= self.grace_steps else 0
        if self.signs >= PATIENCE:
            raise CheckFailed(
                f"step {step}: the embeddings collapsed (embedding_std {health.embedding_std:.3f}, effective_rank "
                f'{health.effective_rank:.1f}); lower learning_rate, raise batch_size, or use method = "vicreg"'
            )
