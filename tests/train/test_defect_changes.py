"""What drawn defects change in patch features."""

from __future__ import annotations

from typing import Any

import numpy as np

from orinspect_train.defect_changes import DRAWS, defect_changes, touched


def test_patches_that_a_defect_does_not_reach_do_not_count() -> None:
    changes = np.array([[0, 0], [3, 0], [1e-4, 0], [1, 2]], np.float32)
    np.testing.assert_array_equal(touched(changes), [[3, 0], [1, 2]])


def test_nothing_that_changed_is_zero() -> None:
    frames = np.random.default_rng(0).integers(90, 160, (3, 64, 64, 3)).astype(np.uint8)
    blind = defect_changes(lambda some: np.ones((len(some), 3, 4), np.float32), frames, 0)
    np.testing.assert_array_equal(blind, np.zeros((4, 4), np.float32))


def test_each_frame_is_drawn_on_and_held_against_itself() -> None:
    """Features that are the mean of each quarter: a change along red, green and blue at once is what dark lines make."""
    frames = np.random.default_rng(0).integers(90, 160, (6, 64, 64, 3)).astype(np.uint8)
    seen = []

    def quarters(some: Any) -> Any:
        seen.append(len(some))
        return some.reshape(len(some), 2, 32, 2, 32, 3).mean((2, 4)).reshape(len(some), 4, 3).astype(np.float32)

    changes = defect_changes(quarters, frames, 0)
    assert seen == [1 + DRAWS] * 6
    assert changes.shape == (3, 3) and changes.dtype == np.float32
    np.testing.assert_allclose(changes, changes.T, rtol=1e-5)
    values, axes = np.linalg.eigh(changes)
    assert values[0] >= -1e-4 and abs(axes[:, -1].sum()) > 1.6, "gray"
    np.testing.assert_array_equal(changes, defect_changes(quarters, frames, 0))
    assert not np.array_equal(changes, defect_changes(quarters, frames, 1))
