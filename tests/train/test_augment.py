from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from orinspect_train import augment
from orinspect_train.augment import Augmenter, flip, normalise
from orinspect_train.policies import POLICIES, Policy

Textured = Callable[..., np.ndarray]
# Changes nothing; the tests add what they look at.
STILL = Policy("nothing", brightness=0, contrast=0, noise_levels=0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def coloured(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth images that no mirror or turn leaves as they are."""
    rows, columns = np.mgrid[:height, :width]
    ramp = np.stack([3 * rows, 2 * columns + 40, 200 - rows - columns], axis=-1)
    return np.stack([ramp + number for number in range(count)]).astype(np.uint8)


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("name", POLICIES)
def test_views_are_decided_by_their_seed_and_keep_shape_and_gray(name: str, gray: bool, textured: Textured) -> None:
    images = textured(6) if gray else coloured(6)
    before = images.copy()
    augmenter = Augmenter(gray, POLICIES[name])
    one, again, other = (augmenter.view(images, rng(seed)) for seed in (1, 1, 2))
    assert one.shape == images.shape and one.dtype == np.uint8 and one.flags.c_contiguous
    assert (one == again).all() and (one != other).any() and (images == before).all()
    assert not gray or (one == one[..., :1]).all()
    first = Augmenter(gray, POLICIES[name]).view(images[:1].repeat(8, 0), rng())
    assert len(np.unique(first.reshape(8, -1), axis=0)) == 8, "every image has parameters of its own"


def test_a_policy_that_permits_nothing_changes_nothing(textured: Textured) -> None:
    for gray, images in ((True, textured(3)), (False, coloured(3))):
        assert np.abs(Augmenter(gray, STILL).view(images, rng()).astype(int) - images).max() <= 1


def test_views_are_only_mirrored_and_turned_as_the_policy_permits() -> None:
    image = coloured(1, 32, 32)[0]
    mirrored = {False: [image], True: [image, image[::-1]]}
    for upside_down in (False, True):
        for left_right in (False, True):
            policy = replace(STILL, upside_down=upside_down, left_right=left_right)
            views = Augmenter(False, policy).view(np.stack([image] * 64), rng())
            expected = [one[:, ::step] for one in mirrored[upside_down] for step in ((1, -1) if left_right else (1,))]
            places = [{place for place, one in enumerate(expected) if close(view, one)} for view in views]
            assert set.union(*places) == set(range(len(expected))) and all(places)
    views = Augmenter(False, replace(STILL, quarter_turns=True)).view(np.stack([image] * 64), rng())
    turned = [np.rot90(image, turns) for turns in range(4)]
    assert {next(i for i, one in enumerate(turned) if close(view, one)) for view in views} == {0, 1, 2, 3}


def close(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one.astype(int) - other).max() <= 1)


def test_a_crop_is_a_part_of_the_image_at_its_size() -> None:
    images = coloured(200)
    views = Augmenter(False, replace(STILL, smallest_crop=0.3)).view(images, rng()).astype(int)
    # Red rises by 3 a row in the image, so its range in a view says how much of the height that shows.
    shown = (views[..., 0].max((1, 2)) - views[..., 0].min((1, 2))) / (3 * 47)
    assert 0.3**0.5 - 0.1 < shown.min() < 0.65 and shown.max() > 0.9
    assert np.ptp(views[:, 0, 0, 0]) > 30, "crops lie in different places"


def test_any_turn_keeps_angles_on_images_that_are_not_square() -> None:
    image = np.zeros((1, 64, 128, 3), np.uint8)
    image[0, 22:42, 54:74] = 255
    views = Augmenter(True, replace(STILL, any_turn=True)).view(image.repeat(32, 0), rng())
    bright = (views[:, 12:52, 44:84, 0] > 127).sum((1, 2))
    assert np.abs(bright / 400 - 1).max() < 0.1, "a square turned in the middle keeps its area"
    assert len(np.unique(views[:, 22, 54, 0])) > 2, "the corner moves"


def test_brightness_contrast_and_noise_stay_within_bounds(textured: Textured) -> None:
    flat = np.full((200, 16, 16, 3), 128, np.uint8)
    means = Augmenter(True, POLICIES["gray"]).jitter(flat, rng()).mean(axis=(1, 2, 3))
    assert np.abs(means - 128).max() < 0.15 * 255 + 4
    assert means.std() > 10
    images = textured(100)
    gains = Augmenter(True, replace(STILL, contrast=0.2)).jitter(images, rng()).std((1, 2, 3)) / images.std((1, 2, 3))
    assert 0.79 < gains.min() < 0.85 and 1.15 < gains.max() < 1.21
    noisy = Augmenter(False, replace(STILL, noise_levels=6.0)).jitter(flat, rng()).astype(float)
    levels = noisy.std((1, 2, 3))
    assert levels.max() < 6.8 and 2 < levels.mean() < 4
    assert abs(np.corrcoef(noisy[levels.argmax(), ..., 0].ravel(), noisy[levels.argmax(), ..., 1].ravel())[0, 1]) < 0.3


def test_colours_change_without_the_brightness() -> None:
    image = np.broadcast_to(np.array([160, 90, 60], np.uint8), (300, 8, 8, 3))
    luma = np.array([0.299, 0.587, 0.114])
    changed = Augmenter(False, replace(STILL, hue=0.1, saturation=0.4, colourless=0.3)).jitter(image, rng())[:, 0, 0]
    assert np.abs(changed @ luma - image[0, 0, 0] @ luma).max() < 2.5
    spread = np.ptp(changed.astype(int), axis=1)
    assert 0.15 < (spread <= 1).mean() < 0.45, "so many are gray"
    assert spread.max() > 110 and len(np.unique(changed[spread > 1].argmax(1))) == 1


def test_no_weight_of_a_blur_is_a_number_that_processors_are_slow_with() -> None:
    sigma = torch.linspace(augment.LEAST_SIGMA, 2.0, 400)
    kernels = augment.gaussians(sigma, 6)
    torch.testing.assert_close(kernels.sum(1), torch.ones(400))
    assert ((kernels == 0) | (kernels > torch.finfo(torch.float32).tiny)).all()
    exact = torch.exp(-0.5 * (torch.arange(-6, 7) / sigma[:, None]).double() ** 2)
    torch.testing.assert_close(
        kernels.double(), exact / exact.sum(1, keepdim=True), atol=2 * augment.LEAST_WEIGHT, rtol=0
    )


def test_blur_is_gaussian_and_for_some(textured: Textured) -> None:
    images = textured(40, side=64)
    sigma = 0.03
    views = Augmenter(True, replace(STILL, blur=0.5, blur_sigma=sigma)).jitter(images, rng())
    changed = (np.abs(views.astype(int) - images).max((1, 2, 3)) > 1).mean()
    assert 0.15 < changed < 0.75
    strongest = np.asarray(Image.fromarray(images[0]).filter(ImageFilter.GaussianBlur(sigma * 64)))
    roughness = [np.abs(np.diff(view[..., 0].astype(int), axis=0)).mean() for view in (*views, strongest)]
    assert min(roughness[:-1]) > 0.8 * roughness[-1], "none is blurred more than the policy says"


def test_cut_out_paints_a_rectangle_over(textured: Textured) -> None:
    images = textured(50)
    views = Augmenter(True, replace(STILL, cut_out=0.2)).view(images, rng())
    painted = (np.abs(views.astype(int) - images).max(3) > 1).mean((1, 2))
    assert 0.1 < painted.max() <= 0.21 and np.ptp(painted) > 0.05


def test_chunks_do_not_matter_for_what_is_permitted(textured: Textured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "CHUNK_PIXELS", 3 * 64 * 64)
    views = Augmenter(True, STILL).view(textured(7), rng())
    assert np.abs(views.astype(int) - textured(7)).max() <= 1


@pytest.mark.parametrize("choice", [(False, False), (True, False), (False, True), (True, True)])
def test_flip(choice: tuple[bool, bool]) -> None:
    image = np.arange(12).reshape(2, 3, 2)
    expected = image
    if choice[0]:
        expected = np.flipud(expected)
    if choice[1]:
        expected = np.fliplr(expected)
    assert (flip(image, np.array(choice)) == expected).all()


def test_normalise_is_that_of_the_graph() -> None:
    pixels = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    found = normalise(pixels, mean, std)
    assert found.shape == (2, 3, 4, 5) and found.dtype == torch.float32
    for channel in range(3):
        expected = (pixels[..., channel] / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(found[:, channel], expected)
