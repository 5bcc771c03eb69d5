"""Two kinds of good image are found as two, one kind as one."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.groups import find_groups, k_means, members, nearest_centroid

DIM = 60


def kinds(*sizes: int, apart: float = 3.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian kinds of the given sizes with correlated dimensions of different scales, and which kind each row is."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((DIM, DIM)) / np.sqrt(DIM)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    centres = rng.standard_normal((len(sizes), DIM)) * apart
    values = centres[truth] + rng.standard_normal((len(truth), DIM)) @ mixing
    order = rng.permutation(len(truth))
    return (values * rng.uniform(0.1, 10, DIM) + 5)[order].astype(np.float32), truth[order]


def one_strong_axis(distribution: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((300, DIM))
    values[:, 0] = {"uniform": rng.random(300) * 20, "gaussian": rng.standard_normal(300) * 8}[distribution]
    return (values @ np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]).astype(np.float32)


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return len(np.unique(np.stack([a, b], axis=1), axis=0)) == len(np.unique(a)) == len(np.unique(b))


@pytest.mark.parametrize("sizes", [(120, 80), (60, 50, 40), (200, 40)])
def test_kinds_are_found(sizes: tuple[int, ...]) -> None:
    values, truth = kinds(*sizes)
    groups = find_groups(values)
    assert groups.count == len(sizes)
    assert same_partition(groups.labels, truth)
    assert groups.labels.tolist() == groups.assign(values).tolist()
    assert np.bincount(groups.labels).tolist() == sorted(sizes, reverse=True)


def test_a_handful_is_no_kind_unless_asked_for() -> None:
    values, truth = kinds(200, 15)
    assert find_groups(values).count == 1
    assert same_partition(find_groups(values, count=2).labels, truth)


@pytest.mark.parametrize("seed", range(4))
def test_one_gaussian_is_one_kind(seed: int) -> None:
    groups = find_groups(kinds(150, seed=seed)[0], seed=seed)
    assert groups.count == 1
    assert groups.strengths[0] == 1.0


@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
def test_brightness_that_drifts_is_one_kind(distribution: str) -> None:
    assert find_groups(one_strong_axis(distribution)).count == 1


def test_noisy_textures_are_one_kind() -> None:
    rng = np.random.default_rng(5)
    pixels = rng.gamma(2.0, 1.0, (120, 64, 64))
    blocks = pixels.reshape(120, 8, 8, 8, 8).transpose(0, 1, 3, 2, 4).reshape(120, 64, 64)
    values = np.concatenate([blocks.mean(2), blocks.std(2), blocks.max(2)], axis=1).astype(np.float32)
    assert find_groups(values).count == 1


@pytest.mark.parametrize("rows", [1, 2, 5, 19])
def test_few_images_are_one_kind(rows: int) -> None:
    groups = find_groups(kinds(rows)[0])
    assert groups.count == 1
    assert np.isfinite(groups.projection).all()


def test_the_rule_is_the_discriminant_of_the_labels_it_gives() -> None:
    values, _ = kinds(70, 60, 50, apart=1.0)
    groups = find_groups(values, count=3, seed=2)
    assert groups.strengths == ()
    standard = (values - values.mean(axis=0)) / values.std(axis=0)
    means = np.stack([standard[groups.labels == g].mean(axis=0) for g in range(3)])
    residuals = standard - means[groups.labels]
    covariance = residuals.T @ residuals / len(values)
    shrunk = 0.7 * covariance + 0.3 * np.trace(covariance) / DIM * np.eye(DIM)
    gap = standard[:, None] - means
    distances = np.einsum("nge,ef,ngf->ng", gap, np.linalg.inv(shrunk), gap)
    logits = (values - groups.mean) @ groups.projection + groups.bias
    np.testing.assert_allclose(
        distances[:, 1:] - distances[:, :1], -2 * (logits[:, 1:] - logits[:, :1]), rtol=0.01, atol=0.1
    )


def two_kinds_and_odd_ones(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As solar cells behind a trained encoder: odd images of the first kind, on the other kind's side of the middle."""
    rng = np.random.default_rng(seed)
    truth = np.repeat([0, 1, 0], [160, 110, 16])
    # What varies in either kind, seen in half of the dimensions: of the odd images it is extreme.
    varying = rng.standard_normal(len(truth))
    varying[-16:] = 6
    values = rng.standard_normal((len(truth), DIM)) + 2.5 * truth[:, None]
    values[:, ::2] += 2 * varying[:, None]
    return values.astype(np.float32), truth


@pytest.mark.parametrize("seed", range(3))
def test_odd_images_stay_with_their_kind_where_the_nearest_centroid_loses_them(seed: int) -> None:
    values, truth = two_kinds_and_odd_ones(seed)
    standard = (values - values.mean(0)) / values.std(0)
    nearest = nearest_centroid(standard, k_means(standard, 2, np.random.default_rng(0)))
    found = find_groups(values, count=2).labels
    wrong = [int(min((labels != truth).sum(), (labels == truth).sum())) for labels in (nearest, found)]
    assert wrong[0] > 5 and wrong[1] <= 2


def test_head_arrays_are_what_the_graph_takes() -> None:
    values, _ = kinds(40, 40)
    arrays = find_groups(values, count=2).head_arrays()
    assert {name: (a.shape, a.dtype) for name, a in arrays.items()} == {
        "group_mean": ((DIM,), np.float32),
        "group_projection": ((DIM, 2), np.float32),
        "group_bias": ((2,), np.float32),
    }
    logits = (values - arrays["group_mean"]) @ arrays["group_projection"] + arrays["group_bias"]
    assert np.unique(logits.argmax(axis=1)).tolist() == [0, 1]


def test_k_means_is_as_good_as_the_reference() -> None:
    values = kinds(80, 70, 60, 50, apart=1.0)[0]
    ours = k_means(values, 4, np.random.default_rng(0))
    cost = ((values - ours[nearest_centroid(values, ours)]) ** 2).sum()
    assert cost <= KMeans(4, n_init=10, random_state=0).fit(values).inertia_ * 1.01


def test_the_seed_alone_decides() -> None:
    values = kinds(50, 50, apart=0.5)[0]
    one, same = (find_groups(values, count=3, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.projection, same.projection)


def test_equal_images_and_constant_dimensions_stay_finite() -> None:
    groups = find_groups(np.full((40, 5), 2.0, np.float32))
    assert groups.count == 1
    assert find_groups(np.full((40, 5), 2.0, np.float32), count=3).labels.max() <= 2
    values, truth = kinds(60, 60)
    values[:, 3] = 1.0
    assert same_partition(find_groups(values).labels, truth)


def test_an_empty_group_is_given_all_images() -> None:
    assert members(np.array([0, 2, 0]), 0).tolist() == [0, 2]
    assert members(np.array([0, 2, 0]), 1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("count", [0, 11, -1])
def test_impossible_number_of_groups(count: int) -> None:
    with pytest.raises(InputError, match="cannot be made of 10"):
        find_groups(np.zeros((10, 3), np.float32), count=count)


@pytest.mark.parametrize("values", [np.zeros((0, 3)), np.zeros(4), np.array([[np.nan, 1.0]])])
def test_unusable_embeddings(values: np.ndarray) -> None:
    with pytest.raises(InputError, match="embeddings"):
        find_groups(values)
