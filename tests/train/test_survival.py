from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from orinspect_train.augment import Augmenter
from orinspect_train.policies import POLICIES, Policy
from orinspect_train.survival import measure_survival

Textured = Callable[..., np.ndarray]
STILL = Policy("nothing", brightness=0, contrast=0, noise_levels=0)


def test_what_changes_nothing_hides_nothing(textured: Textured) -> None:
    found = measure_survival(Augmenter(True, STILL), textured(8), 0)
    assert all(share > 0.98 for share in found.shares.values())
    assert found.costs == {} and found.warning("still") is None


def test_blur_hides_scratches_and_is_named(textured: Textured) -> None:
    found = measure_survival(Augmenter(True, replace(STILL, blur=1.0, blur_sigma=0.05)), textured(8), 0)
    assert found.shares["scratch"] < 0.7
    assert found.costs["blur"] > 0.2 and found.costs["crops"] == found.costs["cut-out"] == 0
    warning = found.warning("soft")
    assert warning is not None and "points lost to blur" in warning and "\n" not in warning


def test_cut_out_and_crops_are_named(textured: Textured) -> None:
    found = measure_survival(Augmenter(True, replace(STILL, cut_out=0.9, smallest_crop=0.05)), textured(8), 0)
    assert found.costs["crops"] > 0.05 and found.costs["cut-out"] > 0.05


def test_changes_of_light_are_named(textured: Textured) -> None:
    found = measure_survival(Augmenter(True, replace(STILL, brightness=1, contrast=1)), textured(8), 0)
    warning = found.warning("glare")
    assert warning is not None and "points lost to changes of light" in warning


def test_the_policies_for_inspection_do_not_warn_and_that_for_photographs_does(textured: Textured) -> None:
    images = textured(16, side=96)
    found = {name: measure_survival(Augmenter(True, POLICIES[name]), images, 0).mean for name in POLICIES}
    assert min(found, key=lambda name: found[name]) == "photo"
