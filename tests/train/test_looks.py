from __future__ import annotations

import pytest

from orinspect_edge_runtime.errors import InputError
from orinspect_train.looks import Looks


@pytest.mark.parametrize("scale", [1.0, 0.5, -2.0, 4.1, float("nan"), float("inf")])
def test_a_second_scale_is_a_larger_one(scale: float) -> None:
    with pytest.raises(InputError, match="more than 1, at most 4"):
        Looks(second_scale=scale)


def test_turns_and_a_second_scale_do_not_go_together() -> None:
    with pytest.raises(InputError, match="use one"):
        Looks(turns=True, second_scale=2)
