from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from orinspect_train import alignment
from orinspect_train.alignment import ANOMALIES, Alignment, Scores, anomalies_of, best_step, has_helped, measure
from orinspect_train.encoder import Encoder, freeze_stages
from orinspect_train.other_things import OTHER_THINGS
from orinspect_train.probe_defects import PROBE_DEFECTS


def table(*values: float) -> Alignment:
    return Alignment(dict(zip(PROBE_DEFECTS, values, strict=True)))


@pytest.mark.parametrize(
    ("after", "helped"),
    [
        ((0.7, 0.7, 0.7), True),
        ((0.7, 0.7, 0.6), True),
        ((0.7, 0.7, 0.3), False),
        ((0.9, 0.5, 0.5), False),
        ((0.6, 0.6, 0.6), False),
        ((0.605, 0.605, 0.605), False),
        ((0.611, 0.611, 0.611), True),
        ((0.5, 0.5, 0.5), False),
        ((float("nan"), 0.7, 0.7), False),
    ],
)
def test_an_adaptation_is_kept_for_two_kinds_and_the_average(after: tuple[float, ...], helped: bool) -> None:
    assert has_helped(table(0.6, 0.6, 0.6), table(*after)) is helped


def test_an_encoder_that_sees_defects_is_told_from_one_that_does_not(textured: Callable[..., np.ndarray]) -> None:
    images = textured(60)

    def roughness(pixels: np.ndarray) -> np.ndarray:
        # Stripes run up and down: along them only noise and defects change.
        values = pixels[..., 0].astype(np.float32)
        steps = np.abs(np.diff(values, axis=1))
        rows = values - values.mean(axis=1, keepdims=True)
        return np.stack([steps.max((1, 2)), np.abs(rows).max((1, 2))], axis=1)[:, None]

    def chance(pixels: np.ndarray) -> np.ndarray:
        return np.random.default_rng(len(pixels)).normal(size=(len(pixels), 1, 4)).astype(np.float32)

    sees, blind = (measure(embed, images[:40], images[40:], seed=0).alignment for embed in (roughness, chance))
    assert sees.auroc.keys() == PROBE_DEFECTS.keys()
    assert sees.mean > 0.85
    assert 0.2 < blind.mean < 0.8
    assert measure(roughness, images[:40], images[40:], seed=0).alignment == sees


def test_where_only_the_embedding_learns_damage_is_looked_for_in_it() -> None:
    encoder = Encoder("test_resnet", 64)
    assert anomalies_of("damage", encoder) is ANOMALIES["damage"]
    freeze_stages(encoder, encoder.patch_stages)
    found = anomalies_of("damage", encoder)
    assert found.kinds == ANOMALIES["damage"].kinds and not found.scorer.has_map and "embedding" in found.measure
    assert anomalies_of("other", encoder) is ANOMALIES["other"]


def test_other_things_are_told_by_what_is_seen_and_not_by_the_gray_values() -> None:
    rng = np.random.default_rng(0)
    shade = np.linspace(20, 200, 64)[:, None] + np.linspace(0, 30, 64)
    noisy = shade + rng.normal(0, 2, (60, 64, 64)) + rng.normal(0, 6, (60, 1, 1))
    images = np.repeat(noisy.clip(0, 255).astype(np.uint8)[..., None], 3, axis=3)

    def layout(pixels: np.ndarray) -> np.ndarray:
        return pixels[..., 0].reshape(len(pixels), 8, 8, 8, 8).mean((2, 4), dtype=np.float32).reshape(len(pixels), 64)

    def histogram(pixels: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(image.ravel() // 64, minlength=4) for image in pixels]).astype(np.float32)

    other = ANOMALIES["other"]
    sees, blind = (
        measure(embed, images[:40], images[40:], seed=0, anomalies=other).alignment for embed in (layout, histogram)
    )
    assert sees.auroc.keys() == OTHER_THINGS.keys()
    assert min(sees.auroc.values()) > 0.95
    assert blind.auroc["shuffled"] == 0.5, "the same gray values"
    assert has_helped(blind, sees) and not has_helped(sees, blind)


def few_levels(seed: int, images: int) -> Scores:
    """Scores with ties, in which every copy outscores its own image."""
    rng = np.random.default_rng(seed)
    clean = rng.integers(0, 6, images).astype(np.float32)
    return Scores(clean, {kind: clean + rng.integers(1, 4, images).astype(np.float32) for kind in PROBE_DEFECTS})


@pytest.mark.parametrize("seed", range(5))
def test_resampled_scores_are_those_of_the_images_drawn(seed: int) -> None:
    scores, images = few_levels(seed, 9), range(9)
    rows = np.random.default_rng([seed, 1]).integers(0, 9, 9)

    def wins(ones: np.ndarray) -> list[float]:
        """Of every pair of two different images, one by one."""
        pairs = [(i, j) for i in ones for j in ones if i != j]
        found = [(d[i], scores.clean[j]) for d in scores.defective.values() for i, j in pairs]
        return [float(bad > good) + 0.5 * float(bad == good) for bad, good in found]

    drawn = scores.resampled(np.stack([np.ones(9, np.int64), np.bincount(rows, minlength=9)]))
    expected = scores.alignment.mean + np.mean(wins(rows)) - np.mean(wins(np.array(images)))
    np.testing.assert_allclose(drawn, [scores.alignment.mean, expected], rtol=1e-12)


def test_resampled_scores_spread_around_the_mean() -> None:
    scores = few_levels(0, 16)
    drawn = scores.resampled(np.random.default_rng(0).multinomial(16, np.full(16, 1 / 16), 4000))
    assert abs(drawn.mean() - scores.alignment.mean) < 0.1 * drawn.std()


@pytest.mark.parametrize(
    ("means", "best"),
    [((0.7, 0.8, 0.75), 2), ((0.7, 0.7, 0.7), 1), ((0.5, 0.4, 0.3), 1), ((0.61, 0.5, 0.62), 3)],
)
def test_the_best_checkpoint_has_the_highest_mean(means: tuple[float, ...], best: int) -> None:
    checks = {step: table(mean, mean, mean) for step, mean in enumerate(means, 1)}
    assert best_step(table(0.6, 0.6, 0.6), checks) == best


def test_of_two_checkpoints_the_one_that_may_be_kept_is_better() -> None:
    one_kind, two_kinds = table(0.99, 0.6, 0.6), table(0.65, 0.65, 0.6)
    assert one_kind.mean > two_kinds.mean
    assert best_step(table(0.6, 0.6, 0.6), {1: one_kind, 2: two_kinds}) == 2


def test_images_are_embedded_in_pieces(textured: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "BATCH", 4)
    sizes = []

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return pixels.float().mean((1, 2))

    images = textured(10)
    found = alignment.in_batches(encode)(images)
    assert sizes == [4, 4, 2]
    np.testing.assert_allclose(found, images.mean((1, 2)), rtol=1e-5)
