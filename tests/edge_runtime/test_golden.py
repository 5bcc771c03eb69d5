from __future__ import annotations

import numpy as np
import pytest

from orinspect_edge_runtime.golden import least_cosine, order_is_kept


def test_like_scores_may_change_places() -> None:
    assert order_is_kept(np.array([1.0, 1.001, 5]), np.array([1.001, 1.0, 5]), 0.01)


@pytest.mark.parametrize("ours", [[5.0, 1.0], [3.0, 3.0], [np.nan, 3.0]])
def test_clear_order_must_stay(ours: list[float]) -> None:
    assert not order_is_kept(np.array(ours), np.array([1.0, 5.0]), 0.1)


def test_least_cosine_is_that_of_the_worst_row() -> None:
    ours, theirs = np.array([[1.0, 0], [1, 1]]), np.array([[2.0, 0], [0, 1]])
    assert least_cosine(ours, theirs) == pytest.approx(np.sqrt(0.5))
    assert least_cosine(np.zeros((1, 2)), theirs[:1]) == 0
