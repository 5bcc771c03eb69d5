from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from orinspect_train.augment import Augmenter
from orinspect_train.methods import nsa


@pytest.fixture
def image(textured: Callable[..., np.ndarray]) -> np.ndarray:
    return textured(1)[0]


@pytest.mark.parametrize("mixed", [True, False])
def test_blending_an_image_into_itself_changes_nothing(image: np.ndarray, mixed: bool) -> None:
    piece = image[:20, :31].astype(np.float32)
    np.testing.assert_array_equal(nsa.poisson(piece, piece, mixed=mixed), image[:20, :31])


def test_only_the_gradients_of_a_piece_count(image: np.ndarray) -> None:
    piece = image[:20, :31].astype(np.float32)
    np.testing.assert_array_equal(nsa.poisson(piece + 60, piece, mixed=False), image[:20, :31])


def test_a_blended_piece_has_its_own_gradients_and_the_border_of_the_image() -> None:
    rng = np.random.default_rng(0)
    piece, under = (rng.uniform(100, 130, (12, 17, 3)).astype(np.float32) for _ in range(2))
    blended = nsa.poisson(piece, under, mixed=False).astype(np.float64)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        np.testing.assert_allclose(blended[edge], under[edge], atol=0.5)

    def laplacian(values: np.ndarray) -> np.ndarray:
        around = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
        return around - 4 * values[1:-1, 1:-1]

    # Five values rounded to whole levels.
    np.testing.assert_allclose(laplacian(blended), laplacian(piece.astype(np.float64)), atol=4.01)


def test_labels_say_how_much_a_patch_changed() -> None:
    changes = np.zeros((1, 8, 8), np.float32)
    changes[0, 1, 5], changes[0, 6, 2] = 12, 36
    labels = nsa.patch_changes(changes, (2, 2), saturation=12)
    np.testing.assert_allclose(labels[0], [[0, 0.5], [0.75, 0]])


def test_patches_without_a_change_are_labelled_zero(textured: Callable[..., np.ndarray]) -> None:
    images = textured(8)
    batch = nsa.render(images, np.random.default_rng(0), (4, 4), Augmenter(gray=True), nsa.Options())
    assert batch["defective"][:4].min() > 0.1 and not batch["defective"][4:].any()
    assert 0 < (batch["patches"][:4] > 0).mean() < 1
    np.testing.assert_array_equal(batch["defective"], batch["patches"].max(axis=1))
