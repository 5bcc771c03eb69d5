from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from textures import KINDS, render

from orinspect_edge_runtime.errors import ConfigError
from orinspect_train.policies import POLICIES, check_name, choose_policy, layout_correlations


def parts(count: int, *, arrow: bool, seed: int = 0) -> np.ndarray:
    """uint8 [count, 64, 64, 3]: a plate in the middle, with an arrow that makes it lie one way, under changing light."""
    rng = np.random.default_rng(seed)
    images = np.full((count, 64, 64), 60.0)
    images[:, 12:52, 12:52] = 150
    if arrow:
        images[:, 14:28, 14:50] = 20
        images[:, 40:50, 40:50] = 250
    images = images * rng.uniform(0.8, 1.2, (count, 1, 1)) + rng.normal(0, 12, images.shape)
    return np.repeat(images.clip(0, 255).astype(np.uint8)[..., None], 3, axis=3)


@pytest.mark.parametrize("kind", KINDS)
def test_textures_are_known_by_having_no_layout(kind: str) -> None:
    # The lamp over the brushed metal always stands on one side, which is a layout that mirroring breaks.
    expected = "gray_upright" if kind == "brushed" else "texture"
    assert choose_policy(render(kind, 64, 40, 2).good, gray=True) == expected


@pytest.mark.parametrize(("arrow", "gray", "name"), [
    (False, True, "gray"), (True, True, "gray_upright"), (False, False, "object"), (True, False, "object_upright"),
])  # fmt: skip
def test_parts_are_upright_when_their_mirror_images_do_not_fit(arrow: bool, gray: bool, name: str) -> None:
    assert choose_policy(parts(30, arrow=arrow), gray=gray) == name


def test_correlations_are_those_of_pairs(textured: Callable[..., np.ndarray]) -> None:
    images = parts(5, arrow=True)
    small = images[..., 0].reshape(5, 32, 2, 32, 2).mean((2, 4)).reshape(5, -1)
    expected = np.mean([np.corrcoef(small[i], small[j])[0, 1] for i in range(5) for j in range(5) if i != j])
    assert layout_correlations(images)[0] == pytest.approx(expected, abs=1e-6)
    blank = np.zeros((3, 64, 64, 3), np.uint8)
    assert layout_correlations(blank) == (0, 0, 0)


def test_a_wrong_name_names_the_nearest() -> None:
    for name in ("auto", *POLICIES):
        check_name(name)
    with pytest.raises(ConfigError, match="did you mean 'texture'"):
        check_name("textures")
    with pytest.raises(ConfigError, match="use auto or one of gray"):
        check_name("xyz")
