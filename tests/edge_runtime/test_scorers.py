"""Each scorer against its formula written out image by image."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.gaussian import (
    left_out,
    likelihood_factor,
    low_rank_precision,
    precision_factor,
    precision_factor_of,
)
from orinspect_edge_runtime.heads import DISTANCES, MOST_PROJECTED, OTHER_GROUP_PENALTY, head_inputs
from orinspect_edge_runtime.manifest import EncoderSpec, TensorSpec
from orinspect_edge_runtime.metrics import auroc
from orinspect_edge_runtime.scorers import COMPLETED, SCORERS
from orinspect_edge_runtime.scorers import patchcore as patchcore_module
from orinspect_edge_runtime.scorers.knn import Knn
from orinspect_edge_runtime.scorers.mahalanobis import Mahalanobis
from orinspect_edge_runtime.scorers.padim import Padim, check_rank, options_of
from orinspect_edge_runtime.scorers.patchcore import PatchCore, bank_columns, nearest_distances

IMAGES, ROWS, COLUMNS, DIM, EMBEDDING, GROUPS = 60, 3, 4, 6, 10, 2
POSITIONS = ROWS * COLUMNS
ENCODER = EncoderSpec("tiny", "scratch", "none", (0.5,), (0.5,), (2,), (ROWS, COLUMNS), DIM, EMBEDDING)


def good(seed: int = 0, images: int = IMAGES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings, patches and groups of good images: every position of either group has a distribution of its own."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    groups = np.arange(images) % GROUPS
    mixing = fixed.standard_normal((GROUPS, POSITIONS, DIM, DIM))
    centres = fixed.standard_normal((GROUPS, POSITIONS, DIM)) * 5
    noise = rng.standard_normal((images, POSITIONS, DIM))
    patches = centres[groups] + np.einsum("npd,npde->npe", noise, mixing[groups])
    embeddings = fixed.standard_normal((GROUPS, EMBEDDING))[groups] * 8 + rng.standard_normal((images, EMBEDDING))
    return embeddings.astype(np.float32), patches.astype(np.float32), groups


def fitted(name: str) -> dict[str, np.ndarray]:
    return SCORERS[name].fit(*good(), GROUPS, seed=0)


@pytest.mark.parametrize("name", SCORERS)
def test_the_table(name: str) -> None:
    scorer = SCORERS[name]
    assert scorer.name == name
    assert scorer.head in DISTANCES
    assert scorer.has_map == (name not in ("knn", "mahalanobis"))
    assert name not in COMPLETED or scorer.has_map
    assert {array.dtype for array in fitted(name).values()} <= {np.dtype(np.float32), np.dtype(np.int32)}


@pytest.mark.parametrize("name", DISTANCES)
def test_arrays_are_the_head_inputs(name: str) -> None:
    arrays = fitted(name)
    shared = {"group_mean", "group_projection", "group_bias", "score_offset", "score_scale"}
    sizes = {"groups": GROUPS, f"{DIM + 1}+groups": DIM + 1 + GROUPS}
    for spec in head_inputs(name, ENCODER):
        if spec.name in shared:
            continue
        array = arrays.pop(spec.name)
        assert array.dtype == np.float32
        assert array.flags.f_contiguous if spec.name == "bank" else array.flags.c_contiguous
        expected = [sizes.get(d, array.shape[-1]) if isinstance(d, str) else d for d in spec.shape]
        assert list(array.shape) == expected
    assert set(arrays) == ({"bank_origin", "bank_radius"} if name == "patchcore" else set())


@pytest.mark.parametrize("name", SCORERS)
def test_defects_score_higher_and_groups_are_kept_apart(name: str) -> None:
    scorer, arrays = SCORERS[name], fitted(name)
    embeddings, patches, groups = good(1)
    clean, distances = scorer.raw_scores(arrays, embeddings, patches, groups)
    assert clean.dtype == np.float32
    assert clean.shape == (IMAGES,)
    assert (distances is not None) == scorer.has_map
    rng = np.random.default_rng(2)
    patches[:, 5] += rng.standard_normal((IMAGES, DIM)) * 40
    bad, _ = scorer.raw_scores(arrays, embeddings + rng.standard_normal(embeddings.shape) * 12, patches, groups)
    assert auroc(np.arange(2 * IMAGES) >= IMAGES, np.concatenate([clean, bad])) > 0.95
    swapped, _ = scorer.raw_scores(arrays, *good(1)[:2], 1 - groups)
    assert np.median(swapped) > 1.3 * np.median(clean)


@pytest.mark.parametrize("name", SCORERS)
def test_the_seed_alone_decides_and_progress_ends_at_one(name: str) -> None:
    shares: list[float] = []
    one = SCORERS[name].fit(*good(), GROUPS, seed=7, progress=shares.append)
    same = SCORERS[name].fit(*good(), GROUPS, seed=7)
    assert one.keys() == same.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], same[key])
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("images", [1, 2, 3])
def test_few_images_and_empty_groups_are_fitted(name: str, images: int) -> None:
    embeddings, patches, _ = good(images=images)
    arrays = SCORERS[name].fit(embeddings, patches, np.zeros(images, int), 3, seed=0)
    scores, _ = SCORERS[name].raw_scores(arrays, *good(3, 6)[:2], np.arange(6) % 3)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", SCORERS)
def test_images_without_any_variation_are_fitted(name: str) -> None:
    embeddings, patches = np.ones((8, EMBEDDING), np.float32), np.ones((8, POSITIONS, DIM), np.float32)
    groups = np.zeros(8, int)
    arrays = SCORERS[name].fit(embeddings, patches, groups, 1, seed=0)
    same, _ = SCORERS[name].raw_scores(arrays, embeddings, patches, groups)
    other, _ = SCORERS[name].raw_scores(arrays, embeddings + 1, patches + 1, groups)
    assert np.isfinite(other).all()
    assert (other > same).all()


def test_patchcore_is_the_distance_to_the_nearest_row_of_the_group() -> None:
    arrays = PatchCore(subsample=200, coreset=0.2, fewest_rows=10).fit(*good(), GROUPS, seed=0)
    embeddings, patches, groups = good(4, 20)
    scores, distances = SCORERS["patchcore"].raw_scores(arrays, embeddings, patches, groups)
    rows, mean, projection = arrays["bank"][:DIM].T, arrays["patch_mean"], arrays["patch_projection"]
    for image in range(20):
        own = rows[arrays["bank"][DIM + 1 + groups[image]] == 0]
        z = (patches[image] - mean) @ projection
        expected = np.linalg.norm(z[:, None] - own[None], axis=2).min(axis=1)
        np.testing.assert_allclose(distances[image], expected, atol=3e-3)
        assert scores[image] == distances[image].max()


def test_patchcore_bank_layout_and_origin() -> None:
    embeddings, patches, groups = good()
    scorer = PatchCore(subsample=200, coreset=0.1, fewest_rows=15)
    arrays = scorer.fit(embeddings, patches, groups, GROUPS, seed=1)
    bank, origin = arrays["bank"], arrays["bank_origin"]
    assert bank.shape == (DIM + 1 + GROUPS, 2 * 20)
    assert origin.shape == (40, 2)
    whitened = (patches[origin[:, 0], origin[:, 1]] - arrays["patch_mean"]) @ arrays["patch_projection"]
    np.testing.assert_allclose(bank[:DIM].T, whitened, atol=1e-4)
    np.testing.assert_allclose(bank[DIM], -(whitened**2).sum(axis=1), rtol=1e-4)
    owner = groups[origin[:, 0]]
    expected = np.where(np.arange(GROUPS)[:, None] == owner, 0, -OTHER_GROUP_PENALTY)
    np.testing.assert_array_equal(bank[DIM + 1 :], expected)
    assert len(np.unique(origin, axis=0)) == 40


def test_patchcore_states_the_radius_of_its_bank() -> None:
    embeddings, patches, groups = good()
    arrays = PatchCore(coreset=0.1, fewest_rows=15).fit(embeddings, patches, groups, GROUPS, seed=1)
    for group in range(GROUPS):
        z = ((patches[groups == group] - arrays["patch_mean"]) @ arrays["patch_projection"]).reshape(-1, DIM)
        rows = arrays["bank"][:DIM, arrays["bank"][DIM + 1 + group] == 0].T
        nearest = np.linalg.norm(z[:, None] - rows[None], axis=2).min(axis=1)
        np.testing.assert_allclose(arrays["bank_radius"][group], nearest.max(), rtol=1e-3)


def test_patchcore_knows_its_own_patches() -> None:
    embeddings, patches, groups = good()
    arrays = PatchCore(coreset=1.0).fit(embeddings, patches, groups, GROUPS, seed=0)
    scores, _ = SCORERS["patchcore"].raw_scores(arrays, embeddings, patches, groups)
    assert scores.max() < 0.02


def test_patchcore_chunks_do_not_change_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = fitted("patchcore")
    whole, _ = SCORERS["patchcore"].raw_scores(arrays, *good(5))
    monkeypatch.setattr(patchcore_module, "CHUNK_BYTES", 1)
    monkeypatch.setattr(patchcore_module, "CHUNK_IMAGES", 7)
    np.testing.assert_allclose(SCORERS["patchcore"].raw_scores(arrays, *good(5))[0], whole, atol=1e-4)
    np.testing.assert_allclose(fitted("patchcore")["patch_projection"], arrays["patch_projection"], atol=1e-4)


def test_rows_of_another_group_are_out_of_reach() -> None:
    bank = bank_columns(np.array([[0.0, 0.0], [100.0, 0.0]], np.float32), np.array([0, 1]), 2)
    query = np.zeros((2, 1, 2), np.float32)
    assert nearest_distances(query, np.eye(2, dtype=np.float32), bank).tolist() == [[0.0], [100.0]]


def test_padim_is_the_mahalanobis_distance_at_each_position() -> None:
    embeddings, patches, groups = good()
    arrays = Padim(shrinkage=0.05).fit(embeddings, patches, groups, GROUPS)
    _, fresh, fresh_groups = good(6, 8)
    scores, distances = SCORERS["padim"].raw_scores(arrays, embeddings, fresh, fresh_groups)
    for image in range(8):
        for position in range(POSITIONS):
            known = patches[groups == fresh_groups[image], position].astype(np.float64)
            covariance = np.cov(known.T)
            shrunk = 0.95 * covariance + 0.05 * np.trace(covariance) / DIM * np.eye(DIM)
            away = fresh[image, position] - known.mean(axis=0)
            expected = np.sqrt(away @ np.linalg.inv(shrunk) @ away)
            assert distances[image, position] == pytest.approx(expected, rel=1e-3)
        assert scores[image] == distances[image].max()


@pytest.mark.parametrize("pooling", [0.0, 0.5])
def test_padim_of_low_rank_is_the_full_one_while_nothing_is_left_out(pooling: float) -> None:
    """The first R - 1 of R axes leave one out, whose variance is its own. Of n images n - 1 axes vary: without pooling a
    rank of that loses nothing.
    """
    rng = np.random.default_rng(1)
    count, columns = (5, 4) if pooling == 0 else (5, DIM * 2 - 1)
    spread = np.linspace(0.3, 3, DIM * 2, dtype=np.float32)
    patches = spread * rng.standard_normal((count, POSITIONS, DIM * 2)).astype(np.float32)
    fresh = 5 * rng.standard_normal((50, POSITIONS, DIM * 2)).astype(np.float32)
    groups, embeddings = np.zeros(count, int), np.zeros((count, 1), np.float32)
    found = {}
    for rank in (None, columns, columns - 1):
        arrays = Padim(rank, pooling=pooling).fit(embeddings, patches, groups, 1)
        assert arrays["patch_factors"].shape == (1, POSITIONS, DIM * 2, rank or DIM * 2)
        _, found[rank] = Padim().raw_scores(arrays, embeddings, fresh, np.zeros(50, int))
    np.testing.assert_allclose(found[columns], found[None], rtol=1e-4)
    if pooling == 0:
        assert np.abs(found[columns - 1] / found[None] - 1).max() > 1e-2


def test_padim_of_low_rank_is_its_formula() -> None:
    """Eigenvalues beyond the rank become their mean."""
    embeddings, patches, groups = good()
    arrays = Padim(2, shrinkage=0.05).fit(embeddings, patches, groups, GROUPS)
    _, fresh, fresh_groups = good(6, 4)
    _, distances = SCORERS["padim"].raw_scores(arrays, embeddings, fresh, fresh_groups)
    for image, position in np.ndindex(4, POSITIONS):
        known = patches[groups == fresh_groups[image], position].astype(np.float64)
        covariance = np.cov(known.T)
        values, axes = np.linalg.eigh(0.95 * covariance + 0.05 * np.trace(covariance) / DIM * np.eye(DIM))
        values[: DIM - 2] = values[: DIM - 2].mean()
        away = fresh[image, position] - known.mean(axis=0)
        assert distances[image, position] == pytest.approx(np.sqrt(((away @ axes) ** 2 / values).sum()), rel=1e-3)


@given(st.integers(0, 2**32 - 1), st.floats(-3, 3), st.sampled_from([(4, 1), (24, 8), (152, 64)]))
def test_a_low_rank_distance_loses_few_digits_to_cancellation(seed: int, power: float, sizes: tuple[int, int]) -> None:
    """Along the largest axis, where nearly all of the scaled length is taken away again, by all that shrinkage allows.

    There the difference of the two squares is at least 1 / (9 D + 1) of them; a float32 is good to 6e-8.
    """
    (dim, rank), rng = sizes, np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    variances = np.where(np.arange(dim) == 0, 1, 1e-9) * 10.0**power
    scale, factor = low_rank_precision(axes * variances @ axes.T, 0.1, rank)
    away = (axes[:, 0] * 3 + axes[:, 1] * 0.01) * 10 ** (power / 2)
    exact = np.sqrt(9 / (0.9 + 0.1 / dim) + 1e-4 / (0.1 / dim))
    near = away.astype(np.float32)
    squared = scale * (near @ near) - ((near @ factor) ** 2).sum()
    assert squared > 0
    assert float(np.sqrt(squared)) == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("columns", [DIM, 2])
def test_a_likelihood_factor_is_the_difference_of_two_precisions(seed: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, root = rng.standard_normal((2, 20, DIM)), rng.standard_normal((DIM, columns)) * 3
    covariances = np.swapaxes(vectors, 1, 2) @ vectors / 20
    factor = likelihood_factor(covariances, 0.1, root)
    precision = precision_factor(covariances, 0.1).astype(np.float64)
    precision = precision @ np.swapaxes(precision, 1, 2)
    wide = np.linalg.inv(np.linalg.inv(precision) + root @ root.T)
    assert factor.shape == (2, DIM, columns) and factor.dtype == np.float32
    np.testing.assert_allclose(factor @ np.swapaxes(factor, 1, 2), precision - wide, rtol=1e-3, atol=1e-4)


def test_padim_by_likelihood_ratio_is_its_formula() -> None:
    """The log of the ratio of two Gaussians about one mean, but for a constant of the place."""
    changes = np.diag([9.0, 4.0, 1.0, 0, 0, 0]).astype(np.float32)
    scorer, (embeddings, patches, groups) = Padim(changes=changes), good()
    arrays = scorer.fit(embeddings, patches, groups, GROUPS)
    _, distances = scorer.raw_scores(arrays, *good(1))
    _, fresh, fresh_groups = good(1)
    for image in range(5):
        own = patches[groups == fresh_groups[image]].astype(np.float64)
        for place in range(POSITIONS):
            covariance = np.cov(own[:, place].T)
            covariance = 0.9 * covariance + 0.1 * np.trace(covariance) / DIM * np.eye(DIM)
            centred = fresh[image, place] - own[:, place].mean(0)
            ratio = centred @ (np.linalg.inv(covariance) - np.linalg.inv(covariance + changes)) @ centred
            assert distances[image, place] == pytest.approx(np.sqrt(ratio), rel=1e-3)
    assert (arrays["patch_scales"] == 0).all() and options_of(arrays) == {"rank": None, "likelihood_ratio": True}


def test_a_rank_keeps_the_directions_that_defects_change_most() -> None:
    """What is left out are those that they do not change: nothing is lost."""
    changes = np.diag([0, 9.0, 0, 4.0, 0, 0]).astype(np.float32)
    full, ranked = (Padim(rank, changes=changes).fit(*good(), GROUPS) for rank in (None, 2))
    assert ranked["patch_factors"].shape[3] == 2 and options_of(ranked) == {"rank": 2, "likelihood_ratio": True}
    _, expected = Padim().raw_scores(full, *good(1))
    _, found = Padim().raw_scores(ranked, *good(1))
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_defects_stand_out_where_the_ratio_knows_their_direction() -> None:
    """Few images of many dimensions, and defects along one of them: plain distances drown it in the others' noise."""
    rng, dim = np.random.default_rng(0), 40
    known, fresh = rng.standard_normal((2, 30, 4, dim)).astype(np.float32)
    bad = fresh.copy()
    bad[:, 1, 0] += 3.5
    changes = np.zeros((dim, dim), np.float32)
    changes[0, 0] = 10
    found, (none, one_group) = [], (np.zeros((30, 1), np.float32), np.zeros(30, int))
    for scorer in (Padim(), Padim(changes=changes)):
        arrays = scorer.fit(none, known, one_group, 1)
        scores = [scorer.raw_scores(arrays, none, some, one_group)[0] for some in (fresh, bad)]
        found.append(auroc(np.arange(60) >= 30, np.concatenate(scores)))
    assert found[0] < 0.75 and found[1] > 0.85


@pytest.mark.parametrize("rank", [0, DIM, 400])
def test_a_rank_that_leaves_nothing_out_or_nothing_over_is_refused(rank: int) -> None:
    with pytest.raises(InputError, match=f"--rank {rank}: 1 to {DIM - 1} for this encoder"):
        Padim(rank).fit(*good(), GROUPS)


@pytest.mark.parametrize(
    ("rank", "columns", "message"),
    [
        (4, DIM, "--rank 4: this bundle's padim graphs take full covariances only"),
        (DIM, "factor_columns", f"--rank {DIM}: 1 to {DIM - 1} for this encoder"),
        (4, "factor_columns", None),
        (None, DIM, None),
        (None, "factor_columns", None),
    ],
)
def test_a_graph_says_which_ranks_it_takes(rank: int | None, columns: int | str, message: str | None) -> None:
    """Before any image is looked at."""
    factors = TensorSpec("patch_factors", "float32", ("groups", POSITIONS, DIM, columns))
    inputs = [factors if spec.name == factors.name else spec for spec in head_inputs("padim", ENCODER)]
    with contextlib.nullcontext() if message is None else pytest.raises(InputError, match=message):
        check_rank(rank, inputs)


def test_recipes_of_before_scales_score_as_they_did() -> None:
    embeddings, patches, groups = good()
    arrays = fitted("padim")
    assert not arrays.pop("patch_scales").any()
    _, distances = SCORERS["padim"].raw_scores(arrays, embeddings, patches, groups)
    away = patches[0, 0] - arrays["patch_means"][groups[0], 0]
    assert distances[0, 0] == pytest.approx(np.linalg.norm(away @ arrays["patch_factors"][groups[0], 0]), rel=1e-5)


def test_padim_with_fewer_images_than_dimensions_borrows_from_other_positions() -> None:
    rng = np.random.default_rng(0)
    patches = rng.standard_normal((4, 30, 12)).astype(np.float32) * np.linspace(0.2, 3, 12, dtype=np.float32)
    groups, embeddings = np.zeros(4, int), np.zeros((4, 1), np.float32)
    fresh = rng.standard_normal((200, 30, 12)).astype(np.float32) * np.linspace(0.2, 3, 12, dtype=np.float32)
    spread = []
    for pooling in (0.0, 0.5):
        arrays = Padim(pooling=pooling).fit(embeddings, patches, groups, 1)
        _, distances = Padim().raw_scores(arrays, embeddings, fresh, np.zeros(200, int))
        spread.append(float(distances.std() / distances.mean()))
    assert spread[1] < 0.8 * spread[0]


def test_padim_projects_patches_of_many_dimensions() -> None:
    rng = np.random.default_rng(3)
    patches = rng.standard_normal((500, 4, MOST_PROJECTED + 144)).astype(np.float32)
    groups, embeddings = np.zeros(500, int), np.zeros((500, 1), np.float32)
    arrays = Padim().fit(embeddings, patches, groups, 1, seed=5)
    projection = arrays["patch_projection"]
    assert projection.shape == (MOST_PROJECTED + 144, MOST_PROJECTED)
    np.testing.assert_allclose(projection.T @ projection, np.eye(MOST_PROJECTED), atol=1e-5)
    assert arrays["patch_factors"].shape == (1, 4, MOST_PROJECTED, MOST_PROJECTED)
    defective = patches + 0.5 * rng.standard_normal(patches.shape[2]).astype(np.float32)
    clean, _ = Padim().raw_scores(arrays, embeddings, patches, groups)
    bad, _ = Padim().raw_scores(arrays, embeddings, defective, groups)
    assert auroc(np.arange(1000) >= 500, np.concatenate([clean, bad])) > 0.95


def test_mahalanobis_is_its_formula() -> None:
    embeddings, patches, groups = good()
    scorer = Mahalanobis(shrinkage=0.1)
    arrays = scorer.fit(embeddings, patches, groups, GROUPS)
    fresh, _, fresh_groups = good(7, 10)
    scores, _ = scorer.raw_scores(arrays, fresh, patches, fresh_groups)
    for image in range(10):
        known = embeddings[groups == fresh_groups[image]].astype(np.float64)
        shrunk = 0.9 * np.corrcoef(known.T) + 0.1 * np.eye(EMBEDDING)
        away = (fresh[image] - known.mean(axis=0)) / known.std(axis=0)
        assert scores[image] == pytest.approx(np.sqrt(away @ np.linalg.inv(shrunk) @ away), rel=1e-3)


def test_left_out_is_the_distance_from_a_gaussian_of_all_others() -> None:
    rng = np.random.default_rng(0)
    for count, dim, share in ((8, 3, 1.0), (30, 10, 0.9), (20, 60, 0.9), (2, 4, 0.5)):
        vectors = rng.standard_normal((count, dim)) * rng.uniform(0.5, 3, dim)
        # What it is shrunk towards is the same without a vector, as the formula takes it.
        aim = (1 - share) * 2.0 * np.eye(dim)

        def distance(x: np.ndarray, known: np.ndarray, share: float = share, aim: np.ndarray = aim) -> float:
            away = x - known.mean(axis=0)
            return float(np.sqrt(away @ np.linalg.inv(share * np.cov(known.T, bias=True) + aim * (1 + 1e-9)) @ away))

        own = np.array([distance(x, vectors) for x in vectors])
        others = np.array([distance(x, np.delete(vectors, n, axis=0)) for n, x in enumerate(vectors)])
        found = left_out(own, count, share)
        if share == 1:
            np.testing.assert_allclose(found, others, rtol=1e-6)
        else:
            np.testing.assert_allclose(found, others, rtol=2 / count)
        assert (found > own).all()
    assert left_out(np.array([3.0]), 1, 0.9) == [3.0]


@given(st.integers(2, 60), st.floats(0, 1), st.integers(0, 99))
def test_left_out_is_finite_and_keeps_the_order(count: int, share: float, seed: int) -> None:
    distances = np.sort(np.random.default_rng(seed).uniform(0, np.sqrt(2 * count), count))
    found = left_out(distances, count, share)
    assert np.isfinite(found).all() and (np.diff(found) >= 0).all() and (found >= distances).all()


def test_padim_and_mahalanobis_add_up_and_weigh_alike() -> None:
    scorer, count = SCORERS["padim_mahalanobis"], 1000
    arrays, apart = (SCORERS[name].fit(*good(images=count), GROUPS) for name in ("padim_mahalanobis", "padim"))
    whole = Mahalanobis().fit(*good(images=count), GROUPS)
    fresh = good(7, 1000)
    scores, distances = scorer.raw_scores(arrays, *fresh)
    largest, by_place = SCORERS["padim"].raw_scores(apart, *fresh)
    of_image, _ = Mahalanobis().raw_scores(whole, *fresh)
    np.testing.assert_array_equal(distances, by_place, "the map is padim's")
    for group in range(GROUPS):
        rows = fresh[2] == group
        added = scores[rows] - largest[rows]
        weights = (added + arrays["embedding_usual"][group]) / of_image[rows]
        np.testing.assert_allclose(weights, weights.mean(), rtol=1e-3)
        assert added.std() == pytest.approx(largest[rows].std(), rel=0.3), "both vary alike over unseen good images"
        assert abs(added.mean()) < 0.3 * added.std(), "of usual images nothing is added"


def test_knn_is_its_formula() -> None:
    embeddings, patches, groups = good()
    scorer = Knn(neighbours=3)
    arrays = scorer.fit(embeddings, patches, groups, GROUPS)
    fresh, _, fresh_groups = good(8, 10)
    scores, _ = scorer.raw_scores(arrays, fresh, patches, fresh_groups)
    for image in range(10):
        known = embeddings[groups == fresh_groups[image]]
        away = (known - fresh[image]) / known.std(axis=0)
        expected = np.sort(np.linalg.norm(away, axis=1))[:3].mean()
        assert scores[image] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
def test_precision_factor_inverts_the_shrunk_covariance(shrinkage: float) -> None:
    values = np.random.default_rng(0).standard_normal((3, 40, 5))
    covariance = np.stack([np.cov(v.T) for v in values])
    factor = precision_factor(covariance, shrinkage)
    variance = np.trace(covariance, axis1=1, axis2=2)[:, None, None] / 5
    shrunk = (1 - shrinkage) * covariance + shrinkage * variance * np.eye(5)
    np.testing.assert_allclose(factor @ factor.transpose(0, 2, 1), np.linalg.inv(shrunk), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 60])
def test_the_factor_of_few_vectors_gives_the_distances_of_their_covariance(count: int, shrinkage: float) -> None:
    dim, rng = 40, np.random.default_rng(count)
    vectors = rng.standard_normal((count, dim)) * np.geomspace(1, 20, dim)
    away = rng.standard_normal((50, dim)) * np.geomspace(1, 20, dim)
    shrunk = precision_factor(vectors.T @ vectors / count, shrinkage)
    expected = np.linalg.norm(away @ shrunk, axis=1)
    found = np.linalg.norm(away @ precision_factor_of(vectors, shrinkage), axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-6 if shrinkage else 1e-4)


def test_the_factor_of_vectors_that_never_vary_gives_plain_distances() -> None:
    np.testing.assert_allclose(precision_factor_of(np.zeros((3, 8)), 0.1), np.eye(8) / np.sqrt(0.1), rtol=1e-5, atol=0)
