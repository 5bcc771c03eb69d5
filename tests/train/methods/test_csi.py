"""CSI: turned views in the order of their names, whatever the policy permits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from orinspect_edge_runtime.errors import ConfigError
from orinspect_train.augment import Augmenter
from orinspect_train.config import PretrainConfig
from orinspect_train.encoder import Encoder
from orinspect_train.methods import open_method
from orinspect_train.methods.csi import upright
from orinspect_train.methods.rotation import TURNS
from orinspect_train.policies import POLICIES, Policy

STILL = Policy("nothing changes", brightness=0, contrast=0, noise_levels=0)


def arrows(count: int) -> np.ndarray:
    """uint8 [count, 32, 32, 3], bright above and dark below."""
    images = np.zeros((count, 32, 32, 3), np.uint8)
    images[:, :16] = 200
    return images


def test_a_view_is_followed_by_its_three_turns() -> None:
    method = open_method(PretrainConfig(method="csi", size=32), Encoder("tiny_resnet", 32), Augmenter(True, STILL), 1)
    batch = method.render(arrows(3), np.random.default_rng(0))
    assert set(batch) == {"first", "second"}
    for views in batch.values():
        assert views.shape == (3, TURNS, 32, 32, 3)
        for turn in range(TURNS):
            np.testing.assert_array_equal(views[:, turn], np.rot90(arrows(3), turn, (1, 2)))


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_no_policy_turns_a_view_over(name: str) -> None:
    """A thing upside down would be named upright."""
    policy = upright(Augmenter(True, POLICIES[name])).policy
    assert not (policy.upside_down or policy.quarter_turns or policy.any_turn)
    assert (policy.left_right, policy.smallest_crop) == (POLICIES[name].left_right, POLICIES[name].smallest_crop)


def test_turned_copies_are_other_images() -> None:
    """Where every embedding is the same, the contrast is that of all turned views but one, and no turn has a name."""
    encoder = Encoder("tiny_resnet", 32)
    method = open_method(PretrainConfig(method="csi", size=32), encoder, Augmenter(True, STILL), 1)
    images = 5
    for parameter in method.heads.parameters():
        torch.nn.init.zeros_(parameter)
    rendered = method.render(arrows(images), np.random.default_rng(0))
    batch = {name: torch.from_numpy(views.copy()) for name, views in rendered.items()}
    loss, embeddings = method.loss(lambda pixels: pixels.permute(0, 3, 1, 2).float() / 255, batch, 0.0)
    assert embeddings.shape == (2 * images * TURNS, encoder.embedding_dim)
    assert loss.item() == pytest.approx(math.log(2 * images * TURNS - 1) + math.log(TURNS), rel=1e-4)


def test_options_are_those_of_simclr_and_have_ranges() -> None:
    config = PretrainConfig(method="csi", size=32, options={"temperature": 0.0})
    with pytest.raises(ConfigError, match=r"\[csi\] temperature"):
        open_method(config, Encoder("tiny_resnet", 32), Augmenter(True, STILL), 1)
