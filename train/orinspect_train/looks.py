"""How often an encoder looks at each frame: once, turned four ways, or at two scales."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from orinspect_edge_runtime.errors import InputError
from orinspect_train.encoder import Encoder
from orinspect_train.methods.rotation import TURNS
from orinspect_train.turned import TurnedEncoder
from orinspect_train.two_scales import Size, TwoScaleEncoder, larger

# At 4 the second pass has sixteen times the work of the first.
MOST_SCALE = 4


@dataclass(frozen=True)
class Looks:
    """How often an encoder looks at each frame. turns: embed its four quarter turns (see turned.py). second_scale: take
    patches at so many times the size too (see two_scales.py).

    Raises InputError for both at once, and for a scale that is not larger than 1 or is larger than 4.
    """

    turns: bool = False
    second_scale: float | None = None

    def __post_init__(self) -> None:
        if self.second_scale is None:
            return
        if not 1 < self.second_scale <= MOST_SCALE:
            raise InputError(f"--second-scale {self.second_scale:g}: more than 1, at most {MOST_SCALE}")
        if self.turns:
            raise InputError("--turns is for scorers of the embedding, --second-scale for those of patches: use one")


def looking(encoder: Encoder, small: Size, looks: Looks) -> tuple[nn.Module, Size]:
    """The encoder that looks so at frames, and the frames' size; small: the one it was trained at. Raises InputError."""
    if looks.turns:
        if small[0] != small[1]:
            raise InputError(f"frames of {small[1]}x{small[0]} pixels: --turns needs square ones")
        return TurnedEncoder(encoder, small[0]), small
    if looks.second_scale is None:
        return encoder, small
    large = larger(small, looks.second_scale, encoder.reductions[-1])
    if encoder.has_fixed_size:
        raise InputError(f"the encoder {encoder.name!r} takes images of one size: no --second-scale with it")
    if large[0] <= small[0] or large[1] <= small[1]:
        least = math.ceil(100 + 50 * encoder.reductions[-1] / min(small)) / 100
        raise InputError(f"--second-scale {looks.second_scale:g} leaves the size as it is: try {least} or more")
    return TwoScaleEncoder(encoder, small, large), large


def told(looks: Looks, small: Size) -> str:
    """What is put behind the name of the method."""
    if looks.turns:
        return f", embedding of {TURNS} turns"
    return "" if looks.second_scale is None else f", embedding at {small[1]}x{small[0]} pixels, patches at two scales"
