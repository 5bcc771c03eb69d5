"""Rules of nearness against their formulas written out image by image: in numpy, and behind a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orinspect_edge_runtime.backends import open_backend, searching
from orinspect_edge_runtime.backends.onnxruntime import OnnxRuntimeBackend
from orinspect_edge_runtime.bank_rule import DISTANCES, GRAPHS_RULE, RULE, BankRule, in_space
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import InputError, RecipeError
from orinspect_edge_runtime.features import Features, score_features
from orinspect_edge_runtime.golden import head_arrays, read_golden
from orinspect_edge_runtime.heads import OTHER_GROUP_PENALTY
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_edge_runtime.scorers import patchcore as patchcore_module
from orinspect_edge_runtime.scorers.patchcore import PROJECTIONS, PatchCore, bank_columns, options_of, told_options

Array = np.ndarray[Any, Any]
RULES = [
    BankRule(neighbours, reweight, distance)
    for neighbours, reweight in ((1, 0), (3, 0), (1, 9), (1, 2))
    for distance in DISTANCES
]


def away(one: Array, rows: Array, distance: str) -> Array:
    """Distances in float64; of the cosine by its usual formula."""
    if distance == "l2":
        return np.asarray(np.linalg.norm(rows - one, axis=1))
    return np.asarray(1 - rows @ one / (np.linalg.norm(rows, axis=1) * np.linalg.norm(one)))


def naive(arrays: dict[str, Array], patches: Array, groups: Array, rule: BankRule, counted: Array) -> Array:
    """Distances [N, P], image by image and patch by patch."""
    dim, bank, found = patches.shape[2], arrays["bank"].astype(np.float64), np.empty(patches.shape[:2])
    for image in range(len(patches)):
        rows = bank[:dim, bank[dim + 1 + groups[image]] == 0].T
        z = (patches[image].astype(np.float64) - arrays["patch_mean"]) @ arrays["patch_projection"].astype(np.float64)
        every = np.array([away(one, rows, rule.distance) for one in z])
        found[image] = np.sort(every, axis=1)[:, : rule.neighbours].mean(axis=1)
        if rule.reweight and len(rows) > 1:
            farthest = counted[found[image, counted].argmax()]
            nearest = every[farthest].argmin()
            around = np.argsort(away(rows[nearest], rows, rule.distance))[: rule.reweight]
            share = np.exp(every[farthest, nearest]) / np.exp(every[farthest, around]).sum()
            found[image] *= 1 - share
    return found


@given(
    seed=st.integers(0, 2**32 - 1),
    rule=st.sampled_from(RULES),
    projection=st.sampled_from(list(PROJECTIONS)),
    kept=st.none() | st.integers(2, 5),
    groups=st.integers(1, 3),
    rows=st.integers(1, 40),
    masked=st.booleans(),
    chunk=st.sampled_from([1, 16 << 20]),
)
def test_scores_are_their_formula(
    seed: int, rule: BankRule, projection: str, kept: int | None, groups: int, rows: int, masked: bool, chunk: int
) -> None:
    rng = np.random.default_rng(seed)
    patches = (rng.standard_normal((9, 8, 5)) * [3, 2, 1, 0.5, 0.2] + 2).astype(np.float32)
    asked = (rng.standard_normal((6, 8, 5)) * 3 + 2).astype(np.float32)
    embeddings, own, of = np.zeros((9, 1), np.float32), np.arange(9) % groups, rng.integers(groups, size=6)
    scorer = PatchCore(rule, projection, kept, fewest_rows=rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patchcore_module, "CHUNK_BYTES", chunk)
        arrays: dict[str, Array] = dict(scorer.fit(embeddings, patches, own, groups, seed=0))
        counted = np.sort(rng.choice(8, 3, replace=False)) if masked else np.arange(8)
        if masked:
            arrays["inspected"] = np.isin(np.arange(8), counted)
        scores, distances = SCORERS["patchcore"].raw_scores(arrays, embeddings, asked, of)
    expected = naive(arrays, asked, of, rule, counted)
    np.testing.assert_allclose(
        distances, expected, rtol=2e-3 if rule.in_graph else 1e-4, atol=3e-3 * rule.in_graph + 1e-5
    )
    assert distances is not None and (scores == distances.max(axis=1)).all()
    assert (RULE in arrays) != rule.in_graph
    assert options_of(arrays) == vars(rule) | {"projection": projection, "components": None if kept == 5 else kept}


@pytest.mark.parametrize("rule", RULES)
def test_a_bank_that_lies_anywhere_gives_what_rows_in_order_give(rule: BankRule) -> None:
    """Rows of two groups by turns, not grouped as `fit` leaves them."""
    rng = np.random.default_rng(0)
    rows, owners = rule.placed(rng.standard_normal((60, 4)).astype(np.float32)), np.arange(60) % 2
    asked, groups = rng.standard_normal((5, 7, 4)).astype(np.float32), np.arange(5) % 2
    found = []
    for order in (np.arange(60), np.argsort(owners, kind="stable")):
        arrays = {"patch_mean": np.zeros(4, np.float32), "patch_projection": np.eye(4, dtype=np.float32)}
        arrays |= {"bank": bank_columns(rows[order], owners[order], 2), **rule.arrays()}
        found.append(SCORERS["patchcore"].raw_scores(arrays, asked[:, 0], asked, groups)[1])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def of_anomalib(patches: Array, bank: Array, neighbours: int) -> float:
    """Score of an image as `PatchcoreModel.compute_anomaly_score` of anomalib 2.7 has it, in float64.

    `benchmarks/vs_anomalib.py` asks anomalib itself.
    """
    distances = np.linalg.norm(patches[:, None] - bank[None], axis=2)
    farthest = distances.min(axis=1).argmax()
    nearest = distances[farthest].argmin()
    support = np.argsort(np.linalg.norm(bank - bank[nearest], axis=1), kind="stable")[:neighbours]
    exponentials = np.exp(np.linalg.norm(patches[farthest] - bank[support], axis=1))
    return float((1 - exponentials[0] / exponentials.sum()) * distances[farthest, nearest])


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 60), neighbours=st.integers(2, 12), scale=st.floats(0.01, 9))
def test_the_reweighted_score_is_anomalibs(seed: int, rows: int, neighbours: int, scale: float) -> None:
    """With rows and patches that are there twice, and banks of fewer rows than neighbours."""
    rng = np.random.default_rng(seed)
    bank = (rng.standard_normal((rows, 6)) * scale).astype(np.float32)
    bank[rng.integers(rows, size=rows // 3)] = bank[0]
    patches = (rng.standard_normal((10, 6)) * scale).astype(np.float32)
    patches[[3, 7]] = patches[1]
    rule = BankRule(reweight=neighbours)
    arrays = {"patch_mean": np.zeros(6, np.float32), "patch_projection": np.eye(6, dtype=np.float32)}
    arrays |= {"bank": bank_columns(bank, np.zeros(rows, int), 1), **rule.arrays()}
    (score,), _ = SCORERS["patchcore"].raw_scores(arrays, patches[None, 0], patches[None], np.zeros(1, int))
    assert score == pytest.approx(of_anomalib(patches.astype(float), bank.astype(float), neighbours), rel=1e-4)


def test_the_factor_keeps_within_its_bounds() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((50, 8)).astype(np.float32)
    for spread in (0.1, 1, 10, 1e4):
        factor = BankRule(reweight=9).factor((rng.standard_normal(8) * spread).astype(np.float32), rows)
        assert 1 - 1 / 9 - 1e-6 <= factor <= 1
    alike = np.ones((20, 8), np.float32)
    assert BankRule(reweight=9).factor(rows[0], alike) == pytest.approx(8 / 9)
    assert BankRule(reweight=9).factor(rows[0], alike[:4]) == pytest.approx(3 / 4), "there are but four"
    assert BankRule(reweight=9).factor(rows[0], alike[:1]) == 1, "a factor of 0 would pass everything"
    assert GRAPHS_RULE.factor(rows[0], rows) == 1


def test_the_cosine_of_nothing_is_defined() -> None:
    rule = BankRule(distance="cosine")
    vectors = np.array([[0, 0], [3, 4], [1e-30, 0], [-3e18, -4e18]], np.float32)
    placed = rule.placed(vectors)
    np.testing.assert_allclose(placed, [[0, 0], [0.6, 0.8], [1, 0], [-0.6, -0.8]], atol=1e-6)
    assert placed.dtype == np.float32
    np.testing.assert_allclose(rule.nearest(placed, placed[1:2])[:, 0], [0.5, 0, 0.4, 2], atol=1e-6)
    assert rule.nearest(placed[:1], placed[:1]).tolist() == [[0]]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"neighbours": 0}, "--neighbours 0: 1 row or more"),
        ({"reweight": 1}, "--reweight 1: 2 rows or more"),
        ({"reweight": -1}, "--reweight -1: 2 rows or more"),
        ({"neighbours": 2, "reweight": 9}, "leave --neighbours away"),
        ({"distance": "l1"}, "--distance l1 is not known: use one of l2, cosine"),
    ],
)
def test_rules_that_are_none(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BankRule(**rule)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_read_back_from_the_arrays(rule: BankRule) -> None:
    assert BankRule.of(rule.arrays()) == rule
    assert GRAPHS_RULE.arrays() == {}, "recipes of before have none"


@pytest.mark.parametrize("content", [[1, 0], [1, 0, 7], [0, 0, 0], [2, 2, 0], [1, 0, 0, 0], 5, [1, 0, -1]])
def test_a_rule_that_is_not_known_is_refused(content: Any) -> None:
    with pytest.raises(RecipeError, match="upgrade orinspect"):
        BankRule.of({RULE: np.array(content, np.int32)})


def test_no_images_have_no_scores() -> None:
    for rule in (GRAPHS_RULE, BankRule(3)):
        scores, distances = SCORERS["patchcore"].raw_scores(
            tiny(40, rule), np.zeros((0, 9), np.float32), np.zeros((0, 16, 3), np.float32), np.zeros(0, int)
        )
        assert scores.shape == (0,) and distances is not None and distances.shape == (0, 16)


def test_options_are_told_where_they_are_not_the_usual() -> None:
    patches = np.random.default_rng(0).standard_normal((6, 9, 4)).astype(np.float32) * [4, 3, 2, 1]
    embeddings, groups = np.zeros((6, 1), np.float32), np.zeros(6, int)
    for scorer, told in (
        (PatchCore(), ""),
        (PatchCore(BankRule(3, distance="cosine")), "neighbours 3, distance cosine"),
        (PatchCore(BankRule(reweight=9), "none", 2), "reweight 9, projection none, components 2"),
    ):
        assert told_options(scorer.fit(embeddings, patches.astype(np.float32), groups, 1)) == told
    assert options_of(SCORERS["padim"].fit(embeddings, patches.astype(np.float32), groups, 1)) == {}


def test_without_a_projection_patches_are_as_the_encoder_gives_them() -> None:
    rng = np.random.default_rng(0)
    patches = (rng.standard_normal((6, 9, 4)) + 3).astype(np.float32)
    embeddings, groups = np.zeros((6, 1), np.float32), np.zeros(6, int)
    plain = PatchCore(projection="none").fit(embeddings, patches, groups, 1)
    np.testing.assert_array_equal(plain["patch_projection"], np.eye(4))
    cosine = PatchCore(BankRule(distance="cosine"), "none").fit(embeddings, patches, groups, 1)
    assert not cosine["patch_mean"].any(), "the cosine is one of the features, not of what they are off their mean"
    flat = patches.reshape(-1, 4)
    kept = PatchCore(projection="none", components=2).fit(embeddings, patches, groups, 1)
    axes = np.linalg.eigh(np.cov(flat.T))[1][:, 2:]
    centred = flat - flat.mean(axis=0)
    np.testing.assert_allclose(in_space(kept, flat), centred @ axes @ axes.T, atol=1e-4)
    with pytest.raises(InputError, match="--components 5: 1 to 4 for this encoder"):
        PatchCore(components=5).fit(embeddings, patches, groups, 1)
    with pytest.raises(InputError, match="--projection pca is not known: use one of whitened, none"):
        PatchCore(projection="pca")


def test_patches_too_long_for_the_graph_to_keep_groups_apart_are_refused() -> None:
    patches, groups = 90 * np.random.default_rng(0).standard_normal((6, 9, 8)).astype(np.float32), np.arange(6) % 2
    with pytest.raises(InputError, match="too long for kinds of good image; use --groups 1"):
        PatchCore(projection="none").fit(patches[:, 0], patches, groups, 2)
    PatchCore(projection="none").fit(patches[:, 0], patches, groups * 0, 1)
    PatchCore().fit(patches[:, 0], patches, groups, 2)


def tiny(rows: int, rule: BankRule, groups: int = 2) -> dict[str, Array]:
    """A recipe for the tiny graph: a projection, a bank, and a division of the images by their brightness."""
    rng = np.random.default_rng(rows)
    bank = rule.placed(rng.normal(0, 0.5, (rows, 3)).astype(np.float32))
    division = np.zeros((9, groups))
    division[:3, -1] = 1
    values = {
        "group_mean": np.full(9, 0.5),
        "group_projection": division,
        "group_bias": np.zeros(groups),
        "score_offset": np.linspace(0.1, 0.2, groups),
        "score_scale": np.linspace(3, 4, groups),
        "patch_mean": np.array([0.4, 0.5, 0.6]),
        "patch_projection": rng.standard_normal((3, 3)),
        "bank": bank_columns(bank, np.arange(rows) % groups, groups),
    }
    return {name: value.astype(np.float32) for name, value in values.items()} | rule.arrays()


def frames() -> Array:
    rng = np.random.default_rng(1)
    return np.concatenate([rng.integers(0, most, (5, 32, 32, 3), dtype=np.uint8) for most in (90, 256)])


def expected_of(outputs: dict[str, Array], arrays: dict[str, Array]) -> Array:
    scores, groups = score_features(SCORERS["patchcore"], arrays, Features(outputs["embedding"], outputs["patches"]))
    assert set(groups) == {0, 1}, "both groups are asked"
    return scores


@pytest.mark.parametrize("rule", RULES[2:])
@pytest.mark.parametrize("opened_for", ["nothing", "the graph's rule", "this rule"])
def test_behind_a_graph_scores_are_those_in_numpy(real_bundle: Path, rule: BankRule, opened_for: str) -> None:
    """In graphs with a head and without one; small and large banks, the last of them masked."""
    bundle = Bundle.open(real_bundle)
    spec = bundle.manifest.graphs[0]
    opening = {"nothing": None, "the graph's rule": tiny(40, GRAPHS_RULE), "this rule": tiny(40, rule)}[opened_for]
    with open_backend(bundle.read(spec.file), spec, threads=1, arrays=opening) as backend:
        for rows, mask in ((40, None), (3000, None), (3000, np.arange(16) % 3 == 0)):
            arrays = tiny(rows, rule) | ({} if mask is None else {"inspected": mask})
            backend.set_inputs(arrays)
            outputs, prepared = backend.run(frames()), backend.prepare(arrays)
            np.testing.assert_allclose(outputs["score"], expected_of(outputs, arrays), rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(backend.run(frames(), prepared)["score"], outputs["score"])
            assert f"{rows} rows searched" in backend.description
            backend.release(prepared)
        backend.set_inputs(tiny(40, GRAPHS_RULE))
        outputs = backend.run(frames())
        np.testing.assert_allclose(outputs["score"], expected_of(outputs, tiny(40, GRAPHS_RULE)), rtol=1e-4, atol=1e-4)


def test_a_map_shows_every_patch_on_the_scale_of_the_score(real_bundle: Path) -> None:
    """So that masks, tiles, regions and overlays need not know of the rule."""
    bundle = Bundle.open(real_bundle)
    spec = bundle.manifest.graphs[0]
    with open_backend(bundle.read(spec.file), spec, threads=1) as backend:
        for rule in (BankRule(reweight=9), BankRule(3), BankRule(distance="cosine")):
            arrays = tiny(40, rule)
            backend.set_inputs(arrays)
            outputs = backend.run(frames()[:1])
            bank = searching.Bank(arrays, spec)
            group = int(bank._groups.assign(outputs["embedding"])[0])
            _, distances = SCORERS["patchcore"].raw_scores(
                arrays, outputs["embedding"], outputs["patches"], np.array([group])
            )
            assert distances is not None
            scores = (distances[0] - arrays["score_offset"][group]) * arrays["score_scale"][group]
            drawn = bank._tall @ scores.reshape(4, 4) @ bank._wide.T
            assert (outputs["anomaly_map"][0] >= drawn - 1e-4).all(), "bounds from above"
            assert np.corrcoef(outputs["anomaly_map"][0].ravel(), drawn.ravel())[0, 1] > 0.9
            assert outputs["score"][0] == pytest.approx(scores.max(), rel=1e-5)
            assert outputs["anomaly_map"].max() <= outputs["score"][0] + 1e-5


def test_golden_runs_in_a_graph_that_was_opened_for_a_rule(real_bundle: Path) -> None:
    bundle = Bundle.open(real_bundle)
    spec, golden = bundle.manifest.graphs[0], read_golden(bundle)
    with open_backend(bundle.read(spec.file), spec, threads=1, arrays=tiny(40, BankRule(5))) as backend:
        backend.set_inputs(head_arrays(golden, "patchcore"))
        found = backend.run(np.asarray(golden["frames"], np.uint8))
    np.testing.assert_allclose(found["score"], golden["score_patchcore"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("odd", ["no rows in a group", "a row that is no number"])
@pytest.mark.parametrize("is_opened_for_it", [True, False])
def test_odd_recipes_with_a_rule_are_refused(real_bundle: Path, odd: str, is_opened_for_it: bool) -> None:
    bundle, arrays = Bundle.open(real_bundle), tiny(40, BankRule(3))
    if odd == "no rows in a group":
        arrays["bank"][5] = -OTHER_GROUP_PENALTY
    else:
        arrays["bank"][1, 7] = np.nan
    spec = bundle.manifest.graphs[0]
    opening, message = arrays if is_opened_for_it else None, "a group without rows, or values that are no numbers; fit"
    with (
        open_backend(bundle.read(spec.file), spec, threads=1, arrays=opening) as backend,
        pytest.raises(RecipeError, match=message),
    ):
        backend.set_inputs(arrays)


def test_no_backend_passes_over_a_rule(real_bundle: Path) -> None:
    bundle = Bundle.open(real_bundle)
    spec = bundle.manifest.graphs[0]
    with (
        OnnxRuntimeBackend(bundle.read(spec.file), spec, threads=1) as bare,
        pytest.raises(RecipeError, match=f"differs in: {RULE}"),
    ):
        bare.set_inputs(tiny(40, BankRule(3)))
