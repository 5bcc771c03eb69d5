"""The contract of the fused graph: names, shapes and neutral values of the heads' inputs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orinspect_edge_runtime.heads import DISTANCES, HEADS, head_inputs, neutral_inputs
from orinspect_edge_runtime.manifest import EncoderSpec

ENCODER = EncoderSpec("tiny", "scratch", "none", (0.5,) * 3, (0.5,) * 3, (2, 3), (4, 5), 7, 11)
COMMON = {
    "group_mean": (11,),
    "group_projection": (11, "groups"),
    "group_bias": ("groups",),
    "score_offset": ("groups",),
    "score_scale": ("groups",),
}
OWN = {
    "patchcore": {"patch_mean": (7,), "patch_projection": (7, 7), "bank": ("8+groups", "bank_rows")},
    "padim": {
        "patch_projection": (7, 7),
        "patch_means": ("groups", 20, 7),
        "patch_factors": ("groups", 20, 7, "factor_columns"),
        "patch_scales": ("groups", 20),
    },
}
OWN["student"] = OWN["padim"]


@pytest.mark.parametrize("head", DISTANCES)
def test_names_and_shapes(head: str) -> None:
    specs = head_inputs(head, ENCODER)
    assert {spec.name: spec.shape for spec in specs} == COMMON | OWN[head]
    assert {spec.dtype for spec in specs} == {"float32"}


def test_every_head_is_described() -> None:
    assert set(OWN) == set(DISTANCES) > set(HEADS)


@given(st.sampled_from(list(DISTANCES)), st.integers(1, 9), st.integers(1, 9), st.integers(1, 99), st.integers(1, 99))
def test_neutral_inputs_fit_the_shapes(head: str, rows: int, columns: int, patch_dim: int, embedding_dim: int) -> None:
    encoder = dataclasses.replace(ENCODER, grid=(rows, columns), patch_dim=patch_dim, embedding_dim=embedding_dim)
    specs, arrays = {spec.name: spec for spec in head_inputs(head, encoder)}, neutral_inputs(head, encoder)
    assert set(arrays) == set(specs)
    # One group and one row: [b; -|b|^2; -penalty of the one group].
    sizes = {"groups": 1, "bank_rows": 1, "factor_columns": 1, f"{patch_dim + 1}+groups": patch_dim + 2}
    for name, array in arrays.items():
        assert array.dtype == np.float32
        assert array.shape == tuple(sizes[d] if isinstance(d, str) else d for d in specs[name].shape)
        assert (array == (name == "score_scale")).all()


@pytest.mark.parametrize("head", ["", "PatchCore", "knn"])
def test_an_unknown_head_is_refused(head: str) -> None:
    for function in (head_inputs, neutral_inputs):
        with pytest.raises(ValueError, match=f"unknown head {head!r}"):
            function(head, ENCODER)
