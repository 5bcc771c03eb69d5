from __future__ import annotations

import numpy as np
import pytest
import torch

from orinspect_train.encoder import Encoder
from orinspect_train.turned import TurnedEncoder


@pytest.mark.parametrize("name", ["tiny_resnet", "test_vit"])
def test_the_embedding_is_that_of_four_turns_and_the_patches_are_upright(name: str) -> None:
    torch.manual_seed(0)
    encoder = Encoder(name, 64).eval()
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        embedding, patches = TurnedEncoder(encoder, 64)(images)
        turned = [np.rot90(images.numpy(), turns, (2, 3)).copy() for turns in range(4)]
        each = [encoder(torch.from_numpy(values))[0] for values in turned]
        upright = encoder(images)[1]
    assert not torch.allclose(each[1], each[3], atol=1e-2), "turns that look alike would hide a mistake"
    torch.testing.assert_close(embedding, torch.cat(each, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(patches, upright, rtol=1e-4, atol=1e-5)
