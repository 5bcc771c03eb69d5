"""A teacher that follows its student: an exponential moving average of the weights (He et al. 2020, arXiv 1911.05722).

It is a module among the method's heads, so a checkpoint holds it. It moves at the beginning of a step, towards what the
step before made of the student: a run that is resumed between two steps does the same.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from orinspect_train.encoder import Encoder


class Teacher(nn.Module):
    """A copy of an encoder and of heads that no gradient reaches."""

    def __init__(self, encoder: Encoder, *heads: nn.Module) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        self.heads = nn.ModuleList(copy.deepcopy(head) for head in heads)
        self.requires_grad_(False)

    @torch.no_grad()
    def follow(self, encoder: Encoder, *heads: nn.Module, momentum: float) -> None:
        """Keep the share `momentum` of the teacher's weights and take the rest from the students'."""
        own: list[Tensor] = [*self.encoder.parameters(), *self.heads.parameters()]
        new: list[Tensor] = [parameter for student in (encoder, *heads) for parameter in student.parameters()]
        torch._foreach_lerp_(own, new, 1 - momentum)


def rising(momentum: float, done: float) -> float:
    """From `momentum` to 1 by a cosine while `done` goes from 0 to 1 (Grill et al. 2020, arXiv 2006.07733)."""
    return 1 - (1 - momentum) * (math.cos(math.pi * done) + 1) / 2
