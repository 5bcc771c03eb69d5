"""The heads' operators against the formulas of heads.py, written out in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orinspect_edge_runtime.backends.searching import Bank
from orinspect_edge_runtime.heads import HEADS, OTHER_GROUP_PENALTY, axis_filter, neutral_inputs
from orinspect_edge_runtime.manifest import EncoderSpec
from orinspect_edge_runtime.preprocess import PreprocessSpec
from orinspect_export.graph import EncoderGraph
from orinspect_export.head_graph import attach_head, graph_spec

Arrays = dict[str, Any]
ROWS, COLUMNS, DIM = 4, 8, 3
SPEC = EncoderSpec("cells", "scratch", "none", (0.0,) * 3, (1.0,) * 3, (0,), (ROWS, COLUMNS), DIM, DIM)
PREPROCESS = PreprocessSpec(32, 64)
TOLERANCE = {"rtol": 2e-4, "atol": 2e-4}


@pytest.fixture(scope="module")
def encoder() -> Any:
    """An encoder without weights: patches are the mean colours of 8x8 cells, the embedding is their mean."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        cells (uint8[batch, 32, 64, 3] frames)
        => (float[batch, {DIM}] embedding, float[batch, {ROWS * COLUMNS}, {DIM}] patches)
        <int64[3] flat = {{0, {DIM}, -1}}> {{
            pixels = Cast <to = 1> (frames)
            planes = Transpose <perm = [0, 3, 1, 2]> (pixels)
            cells = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (planes)
            rows = Reshape (cells, flat)
            patches = Transpose <perm = [0, 2, 1]> (rows)
            embedding = ReduceMean <axes = [1], keepdims = 0> (patches)
        }}"""
    )
    onnx.checker.check_model(model)
    return model


def head_arrays(head: str, groups: int, rows: int, rng: np.random.Generator) -> Arrays:
    """Random head inputs with distances of about the size that real ones have."""
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    arrays: Arrays = {
        "group_mean": 120 + normal(DIM),
        "group_projection": normal(DIM, groups),
        "group_bias": normal(groups),
        "score_offset": normal(groups),
        "score_scale": 0.5 + np.abs(normal(groups)),
    }
    if head == "padim":
        places = ROWS * COLUMNS
        return arrays | {
            "patch_projection": np.eye(DIM, dtype=np.float32) + 0.1 * normal(DIM, DIM),
            "patch_means": 120 + 20 * normal(groups, places, DIM),
            "patch_factors": 0.1 * normal(groups, places, DIM, min(DIM, 1 + rows % DIM)),
            # Of groups in turn: as of a full covariance, and as of a low-rank one.
            "patch_scales": (1 + np.abs(normal(groups, places))) * (np.arange(groups)[:, None] % 2).astype(np.float32),
        }
    vectors, owner = normal(DIM, rows), np.arange(rows) % groups
    penalty = np.where(np.arange(groups)[:, None] != owner, -OTHER_GROUP_PENALTY, 0)
    bank = np.concatenate([vectors, -(vectors**2).sum(0, keepdims=True), penalty]).astype(np.float32)
    return arrays | {"patch_mean": 120 + normal(DIM), "patch_projection": 0.05 * normal(DIM, DIM), "bank": bank}


def reference_distances(head: str, arrays: Arrays, patches: Any, group: int) -> Any:
    """Distances [P] of one image of a known group, row by row, in float64."""
    if head == "padim":
        x = patches @ arrays["patch_projection"].astype(float) - arrays["patch_means"][group]
        taken = np.einsum("pd,pdk->pk", x, arrays["patch_factors"][group].astype(float))
        scaled = arrays["patch_scales"][group] * (x**2).sum(axis=1)
        return np.sqrt(np.abs(scaled - (taken**2).sum(axis=1)))
    z = (patches - arrays["patch_mean"]) @ arrays["patch_projection"].astype(float)
    bank = arrays["bank"].astype(float)
    squared = (z**2).sum(1)[:, None] - 2 * z @ bank[:DIM] - bank[DIM] - bank[DIM + 1 + group]
    return np.sqrt(np.maximum(squared.min(axis=1), 0))


def reference(head: str, arrays: Arrays, frames: Any) -> tuple[Any, Any]:
    cells = frames.reshape(len(frames), ROWS, 8, COLUMNS, 8, 3).astype(float).mean((2, 4)).reshape(len(frames), -1, 3)
    grids = []
    for patches in cells:
        logits = (patches.mean(0) - arrays["group_mean"]) @ arrays["group_projection"] + arrays["group_bias"]
        group = int(np.argmax(logits))
        distances = reference_distances(head, arrays, patches, group)
        grids.append((distances - arrays["score_offset"][group]) * arrays["score_scale"][group])
    scores = np.stack(grids)
    return scores.max(1), np.stack([smooth(grid.reshape(ROWS, COLUMNS)) for grid in scores])


def smooth(grid: Any, height: int = 32, width: int = 64) -> Any:
    """Bilinear upsampling by torch, then a Gaussian of a quarter of a patch with repeated edges, pixel by pixel."""
    size = (height, width)
    big = torch.nn.functional.interpolate(torch.from_numpy(grid)[None, None], size, mode="bilinear")[0, 0].numpy()
    for axis in (0, 1):
        sigma = 0.25 * big.shape[axis] / grid.shape[axis]
        reach = max(1, int(np.ceil(3 * sigma)))
        taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        line = lambda v, taps=taps, reach=reach: np.convolve(np.pad(v, reach, mode="edge"), taps / taps.sum(), "valid")  # noqa: E731
        big = np.apply_along_axis(line, axis, big)
    return big


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 2, 50), (3, 2, 7), (3, 5, 400), (2, 3, 20000)])
def test_a_head_computes_its_formula(
    head: str, sizes: tuple[int, int, int], encoder: Any, run_graph: Callable[..., Any]
) -> None:
    batch, groups, rows = sizes
    rng = np.random.default_rng(rows)
    frames = rng.integers(0, 256, (batch, 32, 64, 3), dtype=np.uint8)
    frames[:, :8, :8] = 255
    arrays = head_arrays(head, groups, rows, rng)
    outputs = run_graph(attach_head(encoder, head, SPEC, PREPROCESS), frames=frames, **arrays)
    score, anomaly_map = reference(head, arrays, frames)
    np.testing.assert_allclose(outputs["score"], score, **TOLERANCE)
    np.testing.assert_allclose(outputs["anomaly_map"], anomaly_map, **TOLERANCE)


@pytest.mark.parametrize("head", HEADS)
def test_the_group_decides_the_distance(head: str, encoder: Any, run_graph: Callable[..., Any]) -> None:
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (1, 32, 64, 3), dtype=np.uint8)
    arrays = head_arrays(head, 2, 8, rng)
    model = attach_head(encoder, head, SPEC, PREPROCESS)
    scores = [
        run_graph(model, frames=frames, **arrays | {"group_bias": np.array(bias, np.float32)})["score"]
        for bias in ([1e6, 0], [0, 1e6])
    ]
    assert abs(scores[0] - scores[1]) > 0.05


@pytest.mark.parametrize("head", HEADS)
def test_an_embedding_that_is_no_number_gives_no_score(head: str, encoder: Any, run_graph: Callable[..., Any]) -> None:
    rng = np.random.default_rng(2)
    frames = rng.integers(0, 256, (1, 32, 64, 3), dtype=np.uint8)
    arrays = head_arrays(head, 2, 8, rng) | {"group_mean": np.full(DIM, np.nan, np.float32)}
    outputs = run_graph(attach_head(encoder, head, SPEC, PREPROCESS), frames=frames, **arrays)
    assert np.isnan(outputs["score"]).all()
    assert np.isnan(outputs["anomaly_map"]).all()


@pytest.mark.parametrize("head", HEADS)
def test_no_recipe_runs_as_well(head: str, encoder: Any, run_graph: Callable[..., Any]) -> None:
    frames = np.full((2, 32, 64, 3), 7, np.uint8)
    outputs = run_graph(attach_head(encoder, head, SPEC, PREPROCESS), frames=frames, **neutral_inputs(head, SPEC))
    assert not outputs["score"].any()
    assert not outputs["anomaly_map"].any()
    assert np.allclose(outputs["patches"], 7)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["resnet", "squeeze"])
def test_the_manifest_says_what_the_file_has(head: str, name: str, request: pytest.FixtureRequest) -> None:
    graph: EncoderGraph = request.getfixturevalue(name)
    fused = attach_head(graph.model, head, graph.spec, graph.preprocess)
    spec = graph_spec(head, "fp32", graph.spec, graph.preprocess)
    kinds = {"uint8": onnx.TensorProto.UINT8, "float32": onnx.TensorProto.FLOAT}
    for tensors, values in ((spec.inputs, fused.graph.input), (spec.outputs, fused.graph.output)):
        found = [(v.name, v.type.tensor_type.elem_type, tuple(dimensions(v))) for v in values]
        assert found == [(t.name, kinds[t.dtype], t.shape) for t in tensors]


def dimensions(value: Any) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@given(patches=st.integers(1, 40), stride=st.integers(1, 40), value=st.floats(-1e3, 1e3, width=32))
def test_a_constant_grid_gives_a_constant_map(patches: int, stride: int, value: float) -> None:
    matrix = axis_filter(patches, patches * stride)
    assert matrix.shape == (patches * stride, patches)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix @ np.full(patches, value), value, rtol=1e-5, atol=1e-5)


@given(patches=st.integers(2, 20), stride=st.integers(4, 32))
def test_a_patch_is_brightest_in_its_own_place(patches: int, stride: int) -> None:
    matrix = axis_filter(patches, patches * stride)
    centres = (np.arange(patches) + 0.5) * stride
    assert np.abs(matrix.argmax(axis=0) + 0.5 - centres)[1:-1].max(initial=0) <= 1
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-6)


@pytest.mark.parametrize(("groups", "rows"), [(1, 2000), (2, 5000)])
def test_a_large_bank_scored_outside_the_graph_gives_what_the_head_gives(
    groups: int, rows: int, encoder: Any, run_graph: Callable[..., Any]
) -> None:
    """In three dimensions the cells hold the nearest row nearly always, so the maps are the same as well."""
    rng = np.random.default_rng(rows)
    arrays = head_arrays("patchcore", groups, rows, rng)
    frames = rng.integers(0, 256, (5, 32, 64, 3), dtype=np.uint8)
    out = run_graph(attach_head(encoder, "patchcore", SPEC, PREPROCESS), frames=frames, **arrays)
    bank = Bank(arrays, graph_spec("patchcore", "fp32", SPEC, PREPROCESS))
    for index in range(5):
        score, anomaly_map = bank.score(out["embedding"][index], out["patches"][index])
        np.testing.assert_allclose(score, out["score"][index], **TOLERANCE)
        assert anomaly_map.dtype == np.float32
        np.testing.assert_allclose(anomaly_map, out["anomaly_map"][index], atol=0.02)
        assert (anomaly_map > out["anomaly_map"][index] - 1e-3).all(), "bounds lie above the distances"
