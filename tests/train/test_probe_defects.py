from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from orinspect_train.probe_defects import PROBE_DEFECTS


@pytest.mark.parametrize("kind", PROBE_DEFECTS)
def test_a_probe_changes_part_of_the_image(kind: str, textured: Callable[..., np.ndarray]) -> None:
    for seed, image in enumerate(textured(12)):
        before = image.copy()
        drawn = PROBE_DEFECTS[kind](image, np.random.default_rng(seed))
        changed = (np.abs(drawn.astype(int) - image) > 2).any(axis=2).mean()
        assert drawn.shape == image.shape and drawn.dtype == np.uint8
        assert 0.001 < changed < 0.4
        assert (image == before).all()


@pytest.mark.parametrize("kind", PROBE_DEFECTS)
def test_a_probe_is_a_function_of_the_seed(kind: str, textured: Callable[..., np.ndarray]) -> None:
    (image,) = textured(1)
    one, again, other = (PROBE_DEFECTS[kind](image, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert (one == again).all() and (one != other).any()
