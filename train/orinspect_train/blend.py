"""Weights between those that a run began with and those it has trained: what they saw before is forgotten less.

WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903): on a straight line between the two both tasks are often done better than
at either end. config.py sets the share.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

State = dict[str, torch.Tensor]


@contextlib.contextmanager
def blended(trunk: nn.Module, initial: State, share: float) -> Iterator[None]:
    """While inside, the trunk has `share` of its initial weights and the rest of its own; then its own, bit by bit."""
    if share == 0:
        yield
        return
    own = {name: value.clone() for name, value in trunk.state_dict().items()}
    mixed = {
        name: torch.lerp(value, initial[name].to(value), share) if value.is_floating_point() else value
        for name, value in own.items()
    }
    trunk.load_state_dict(mixed)
    try:
        yield
    finally:
        trunk.load_state_dict(own)
