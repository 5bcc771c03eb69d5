"""Other things, made of good images: what the alignment check draws where the wrong part is the anomaly, not a damaged one.

The image keeps its gray values and most of its edges; what changes is what can be seen in it. Nothing is turned by
quarters, which `rotation` has learnt to notice.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch.nn import functional

from orinspect_train.probe_defects import Draw, Pixels, Rng

# All orders of four quarters but the right one.
ORDERS = list(itertools.permutations(range(4)))[1:]
# Turn of a swirl at its middle, in radians; and how far from there it fades to a third, as a share of the side.
LEAST_SWIRL, MOST_SWIRL, SWIRL_REACH = 0.8, 1.6, 0.375


def shuffled(image: Pixels, rng: Rng) -> Pixels:
    """The four quarters of the image, in other places."""
    quarters = [quarter for half in np.split(image, 2) for quarter in np.split(half, 2, axis=1)]
    first, second, third, fourth = (quarters[place] for place in ORDERS[rng.integers(len(ORDERS))])
    return np.block([[[first], [second]], [[third], [fourth]]])


def doubled(image: Pixels, rng: Rng) -> Pixels:
    """Two of it, side by side or one above the other, each squeezed to half."""
    height, width = image.shape[:2]
    shape = (height // 2, 2, width, 3) if rng.random() < 0.5 else (height, width // 2, 2, 3)
    axis = shape.index(2)
    half = np.rint(image.reshape(shape).mean(axis)).astype(np.uint8)
    return np.concatenate([half, half], axis=axis - 1)


def swirled(image: Pixels, rng: Rng) -> Pixels:
    """Twisted about the middle, most there and little at the rim, which is repeated where the image ends."""
    height, width = image.shape[:2]
    rows, columns = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    angle = (
        rng.choice([-1.0, 1.0])
        * rng.uniform(LEAST_SWIRL, MOST_SWIRL)
        * np.exp(-np.hypot(rows, columns) / (2 * SWIRL_REACH))
    )
    places = np.stack(
        [np.cos(angle) * columns - np.sin(angle) * rows, np.sin(angle) * columns + np.cos(angle) * rows], -1
    )
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    grid = torch.from_numpy(places)[None].float()
    turned = functional.grid_sample(planes, grid, padding_mode="border", align_corners=True)
    return np.asarray(turned[0].permute(1, 2, 0).round().numpy(), np.uint8)


OTHER_THINGS: dict[str, Draw] = {"shuffled": shuffled, "doubled": doubled, "swirled": swirled}
