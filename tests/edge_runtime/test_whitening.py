"""Whitened features have unit covariance, however they arrive."""

from __future__ import annotations

import numpy as np
import pytest

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.whitening import Moments, fit_whitening


def features(rows: int = 4000, dim: int = 12) -> np.ndarray:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((dim, dim))
    return (rng.standard_normal((rows, dim)) @ mixing + 50).astype(np.float32)


@pytest.mark.parametrize("kind", ["zca", "pca"])
def test_unit_covariance(kind: str) -> None:
    values = features()
    whitened = fit_whitening([values], kind=kind, floor=1e-9)(values)
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(12), atol=2e-3)
    np.testing.assert_allclose(whitened.mean(axis=0), 0, atol=1e-3)
    assert whitened.dtype == np.float32


def test_chunks_give_what_the_whole_gives() -> None:
    values = features()
    whole = fit_whitening([values])
    parts = fit_whitening([values[:1], values[1:10], values[10:10], values[10:3000], values[3000:]])
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(parts.projection, whole.projection, rtol=1e-4, atol=1e-6)


def test_moments_far_from_the_origin_do_not_cancel() -> None:
    values = features().astype(np.float64) + 1e6
    moments = Moments(12)
    for part in np.array_split(values, 7):
        moments.add(part)
    np.testing.assert_allclose(moments.mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(values.T, bias=True), rtol=1e-8)


def test_zca_and_pca_give_the_same_distances() -> None:
    values = features()
    zca, pca = (fit_whitening([values], kind=kind)(values[:50]) for kind in ("zca", "pca"))
    gram = [np.linalg.norm(z[:, None] - z[None], axis=2) for z in (zca, pca)]
    np.testing.assert_allclose(gram[0], gram[1], atol=1e-3)
    assert np.allclose(fit_whitening([values]).projection, fit_whitening([values]).projection.T, atol=1e-5)


def test_small_variances_are_lifted_to_the_floor() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((5000, 3)) * [10, 1, 1e-6]
    whitened = fit_whitening([values], floor=1e-4)(values.astype(np.float32))
    spread = np.sort(whitened.std(axis=0))
    np.testing.assert_allclose(spread, [1e-5, 1, 1], rtol=0.02)


def test_features_that_never_vary_stay_finite() -> None:
    whitening = fit_whitening([np.full((20, 4), 3.0)])
    assert whitening(np.full((1, 4), 5.0, np.float32)).tolist() == [[2.0] * 4]


def test_a_single_feature_vector_is_enough() -> None:
    assert np.isfinite(fit_whitening([np.arange(5.0)[None]]).projection).all()


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([], "no features"),
        ([np.zeros((0, 3))], "no features"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], "must be"),
        ([np.array([[1.0, np.nan]])], "not finite"),
        ([np.zeros((2, 2)), np.array([[1.0, np.inf]])], "not finite"),
    ],
)
def test_unusable_features(chunks: list[np.ndarray], text: str) -> None:
    with pytest.raises(InputError, match=text):
        fit_whitening(chunks)


def test_unknown_kind() -> None:
    with pytest.raises(InputError, match="zca, pca, none"):
        fit_whitening([np.ones((2, 2))], kind="cholesky")


@pytest.mark.parametrize("kind", ["zca", "pca"])
def test_components_keep_the_directions_of_the_largest_variance(kind: str) -> None:
    rng = np.random.default_rng(2)
    turned = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    values = (rng.standard_normal((4000, 5)) * [9, 5, 3, 1, 0.5]) @ turned.T
    whitening = fit_whitening([values], kind=kind, components=2)
    kept = whitening((whitening.mean + np.concatenate([3 * turned.T, -turned.T])).astype(np.float32))
    lengths = np.linalg.norm(kept, axis=1)
    np.testing.assert_allclose(lengths[:2] / 3, [1 / 9, 1 / 5], rtol=0.1)
    np.testing.assert_allclose(lengths[2:5], 0, atol=0.05)
    assert np.linalg.matrix_rank(whitening.projection, tol=1e-4) == 2
    whole, all_of_them = fit_whitening([values], kind=kind), fit_whitening([values], kind=kind, components=5)
    np.testing.assert_array_equal(whole.projection, all_of_them.projection)


@pytest.mark.parametrize("components", [0, 4])
def test_components_that_are_not_there(components: int) -> None:
    with pytest.raises(InputError, match=f"--components {components}: 1 to 3 for this encoder"):
        fit_whitening([np.ones((2, 3))], components=components)
