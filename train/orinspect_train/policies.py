"""Augmentation policies: what a good image of a kind may undergo without becoming another one, or a defective one.

The choice is part of the pretext: two views teach the encoder to ignore whatever tells them apart. A policy that blurs
or cuts away fine scratches teaches it to ignore fine scratches (`survival.py` measures how much).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import ConfigError

AUTO = "auto"
Pixels = NDArray[np.uint8]

LAYOUT_SIDE, MOST_LOOKED_AT = 32, 256
# Mean correlation of two images below which they share no layout: 0 on rendered textures, .3 and more on clothes and cells.
LEAST_LAYOUT = 0.08
# Share of that correlation which mirrored images keep when mirroring does not matter: .98 on solar cells, .26 to .95 on
# clothes that have a top.
MIRROR_SHARE = 0.93


@dataclass(frozen=True)
class Policy:
    """What a view may differ in from its image.

    suits: what it is meant for. smallest_crop: least share of the area that a view shows. upside_down, left_right:
    whether mirror images are as good. quarter_turns, any_turn: whether turns by 90 degrees, or by any angle, are.
    brightness: largest change, as a share of the whole range. contrast, saturation: largest relative change.
    hue: largest turn of the colour circle, as a share of it.
    colourless: chance that the colours go. noise_levels: largest standard deviation of sensor noise, gray levels.
    blur, blur_sigma: its chance, and its largest sigma as a share of the side. cut_out: largest share of the area that
    is painted over.
    """

    suits: str
    smallest_crop: float = 1.0
    upside_down: bool = False
    left_right: bool = False
    quarter_turns: bool = False
    any_turn: bool = False
    brightness: float = 0.15
    contrast: float = 0.15
    saturation: float = 0.0
    hue: float = 0.0
    colourless: float = 0.0
    noise_levels: float = 4.0
    blur: float = 0.0
    blur_sigma: float = 0.0
    cut_out: float = 0.0


POLICIES: dict[str, Policy] = {
    "gray": Policy("X-ray, EL, thermal images; mirror images are as good", 0.4, upside_down=True, left_right=True),
    "gray_upright": Policy("X-ray, EL, thermal images; the way up matters", 0.6),
    "texture": Policy(
        "endless surfaces: fabric, metal, wood, stone", 0.3, upside_down=True, left_right=True, quarter_turns=True,
        saturation=0.1,
    ),
    "object": Policy("parts that may lie mirrored", 0.5, upside_down=True, left_right=True, saturation=0.1),
    "object_upright": Policy("parts that always lie the same way, prints", 0.6, saturation=0.1),
    "object_turned": Policy(
        "parts that lie at any angle", 0.7, upside_down=True, left_right=True, any_turn=True, saturation=0.1
    ),
    "aligned": Policy(
        "things that always lie in one place, in any light; mirror images are as good", 0.85, left_right=True,
        brightness=0.4, contrast=0.4, saturation=0.2,
    ),
    "aligned_upright": Policy(
        "things that always lie in one place, in any light", 0.85, brightness=0.4, contrast=0.4, saturation=0.2
    ),
    "bulk": Policy(
        "parts that hide one another", 0.4, upside_down=True, left_right=True, any_turn=True, saturation=0.1, cut_out=0.2
    ),
    "photo": Policy(
        "varied photographs: SimCLR's own (Chen et al. 2020, arXiv 2002.05709)", 0.2, left_right=True, brightness=0.2,
        contrast=0.4, saturation=0.4, hue=0.1, colourless=0.2, noise_levels=0.0, blur=0.5, blur_sigma=0.009,
    ),
}  # fmt: skip


def check_name(name: str) -> None:
    """Raise ConfigError, naming the nearest one, for a name that is neither `auto` nor in POLICIES."""
    if name != AUTO and name not in POLICIES:
        near = difflib.get_close_matches(name, POLICIES, 1)
        meant = f"did you mean {near[0]!r}?" if near else f"use auto or one of {', '.join(POLICIES)}"
        raise ConfigError(f"policy is {name!r}: {meant}")


def choose_policy(pixels: Pixels, *, gray: bool) -> str:
    """The name of the policy that suits uint8 [N, H, W, 3] by what can be seen in them.

    Images without a common layout are textures; with one, it is asked whether mirrored images fit it as well. `photo`,
    `bulk`, `object_turned` and the `aligned` ones are never chosen: what they permit cannot be read from good images.
    """
    plain, upside_down, left_right = layout_correlations(pixels[:MOST_LOOKED_AT])
    if plain < LEAST_LAYOUT:
        return "texture"
    upright = min(upside_down, left_right) < MIRROR_SHARE * plain
    return ("gray" if gray else "object") + ("_upright" if upright else "")


def layout_correlations(pixels: Pixels) -> tuple[float, float, float]:
    """Mean correlation of two different images of uint8 [N, H, W, 3], as they are and with one of them mirrored.

    The mirrors are upside down, and left to right. Computed in gray at 32x32 pixels; H and W are multiples of 32.
    """
    count, height, width = pixels.shape[:3]
    cells = pixels.reshape(count, LAYOUT_SIDE, height // LAYOUT_SIDE, LAYOUT_SIDE, width // LAYOUT_SIDE, 3)
    small = cells.mean(axis=(2, 4, 5), dtype=np.float64)
    small -= small.mean(axis=(1, 2), keepdims=True)
    small /= np.sqrt(np.square(small).mean(axis=(1, 2), keepdims=True)) + 1e-9
    return _mean_product(small, small), _mean_product(small, small[:, ::-1]), _mean_product(small, small[:, :, ::-1])


def _mean_product(ones: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Mean over pixels and all pairs of different images."""
    count = len(ones)
    every = (ones.sum(axis=0) * others.sum(axis=0)).mean()
    own = (ones * others).mean(axis=(1, 2)).sum()
    return float((every - own) / max(count * (count - 1), 1))
