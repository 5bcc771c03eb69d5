"""Inside the weights are mixed, outside they are those of before, whatever happens between."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from orinspect_train.blend import blended


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5])
def test_weights_are_mixed_inside_and_their_own_again_outside(share: float) -> None:
    torch.manual_seed(0)
    trunk, begun = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)) for _ in range(2))
    trunk(torch.rand(2, 3, 8, 8))
    own = {name: value.clone() for name, value in trunk.state_dict().items()}
    with pytest.raises(RuntimeError, match="inside"), blended(trunk, begun.state_dict(), share):
        mixed = {name: value.clone() for name, value in trunk.state_dict().items()}
        raise RuntimeError("inside")
    assert all(torch.equal(value, own[name]) for name, value in trunk.state_dict().items())
    expected = (1 - share) * own["0.weight"] + share * begun.state_dict()["0.weight"]
    assert torch.allclose(mixed["0.weight"], expected) and mixed["1.num_batches_tracked"] == 1
    assert share == 0 or not torch.equal(mixed["0.weight"], own["0.weight"])
