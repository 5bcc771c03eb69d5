"""Does a policy hide what the defect would be? The share of a drawn defect's contrast that is left in a view.

An image and its copy with a drawn defect go through the same random changes; what then differs is the defect. Methods
that make two views of an image agree teach the encoder to ignore what one view shows and the other does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_train.augment import Augmenter
from orinspect_train.probe_defects import PROBE_DEFECTS

Pixels = NDArray[np.uint8]

SURVIVAL_STREAM = 6
MOST_IMAGES, DRAWS = 16, 2
# Of the contrast, mean of the kinds. Chosen by eye: crops alone leave .85 and more, since they miss some defects.
LEAST_SHARE = 0.84
# What hides, by what it is called, and the fields that switch it off.
HIDING: dict[str, dict[str, Any]] = {
    "crops": {"smallest_crop": 1.0},
    "blur": {"blur": 0.0},
    "cut-out": {"cut_out": 0.0},
    "changes of light": {"brightness": 0.0, "contrast": 0.0},
}


@dataclass(frozen=True)
class Survival:
    """shares: of the contrast left, by kind of defect. costs: what each of HIDING takes from the worst of
    them, when that is little."""

    shares: dict[str, float]
    costs: dict[str, float]

    @property
    def mean(self) -> float:
        """Over the kinds."""
        return sum(self.shares.values()) / len(self.shares)

    @property
    def worst(self) -> str:
        """The kind of defect that is hidden most."""
        return min(self.shares, key=lambda kind: self.shares[kind])

    def warning(self, policy: str) -> str | None:
        """One line for the user, or None when the defects stay visible."""
        if self.mean >= LEAST_SHARE:
            return None
        costs = sorted(self.costs.items(), key=lambda item: -item[1])
        causes = ", ".join(f"{name} {100 * cost:.0f}" for name, cost in costs if cost > 0.02)
        return (
            f"policy {policy} hides defects: {100 * self.mean:.0f} % of the contrast of drawn ones is left in a view, "
            f"{100 * self.shares[self.worst]:.0f} % of a {self.worst}'s "
            f"(points lost to {causes}); see --preview, and choose another --policy if your defects are like that"
        )


def measure_survival(augmenter: Augmenter, pixels: Pixels, seed: int) -> Survival:
    """The survival of drawn defects on uint8 [N, H, W, 3] (some of them are used)."""
    shares = {kind: _share(augmenter, pixels, kind, seed) for kind in PROBE_DEFECTS}
    found = Survival(shares, {})
    for name, off in HIDING.items() if found.mean < LEAST_SHARE else ():
        without = replace(augmenter, policy=replace(augmenter.policy, **off))
        found.costs[name] = _share(without, pixels, found.worst, seed) - shares[found.worst]
    return found


def _share(augmenter: Augmenter, pixels: Pixels, kind: str, seed: int) -> float:
    drawing = np.random.default_rng([seed, SURVIVAL_STREAM])
    good = np.repeat(pixels[:MOST_IMAGES], DRAWS, axis=0)
    defective = np.stack([PROBE_DEFECTS[kind](image, drawing) for image in good])
    before = _contrast(good, defective)
    good, defective = (
        augmenter.view(images, np.random.default_rng([seed, SURVIVAL_STREAM, 1])) for images in (good, defective)
    )
    visible = before > 0
    return float(np.minimum(_contrast(good, defective)[visible] / before[visible], 1).mean())


def _contrast(ones: Pixels, others: Pixels) -> NDArray[np.float64]:
    """The largest difference of a pixel, mean of its channels, by image."""
    difference = np.abs(ones.astype(np.int16) - others).mean(axis=3)
    return np.asarray(difference.max(axis=(1, 2)), np.float64)
