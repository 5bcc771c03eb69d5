"""golden.npz: what it holds, and that it would notice a mistake."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from orinspect_edge_runtime.backends import open_backend
from orinspect_edge_runtime.golden import compare
from orinspect_edge_runtime.heads import HEADS, head_inputs
from orinspect_export.golden import (
    FRAMES,
    GROUPS,
    golden_arrays,
    golden_of_precision,
    run_head,
    spread,
    to_npz,
    two_groups,
)
from orinspect_export.graph import EncoderGraph
from orinspect_export.head_graph import attach_head, graph_spec
from orinspect_export.int8 import Quantiser


@pytest.fixture(scope="module")
def graphs(resnet: EncoderGraph) -> dict[str, Any]:
    made = {}
    for head in HEADS:
        model = attach_head(resnet.model, head, resnet.spec, resnet.preprocess)
        made[head] = (model.SerializeToString(), graph_spec(head, "fp32", resnet.spec, resnet.preprocess))
    return made


@pytest.fixture(scope="module")
def golden(graphs: dict[str, Any], resnet: EncoderGraph, frames: Any) -> dict[str, Any]:
    return golden_arrays(graphs, resnet.spec, frames[:24])


def test_everything_of_the_contract_is_there(golden: dict[str, Any], resnet: EncoderGraph) -> None:
    wanted = {"frames", "embedding", "patches"}
    for head in HEADS:
        wanted |= {f"score_{head}", f"anomaly_map_{head}"}
        wanted |= {f"{head}.{tensor.name}" for tensor in head_inputs(head, resnet.spec)}
    assert set(golden) == wanted
    assert all(golden[name].dtype == np.float32 for name in wanted - {"frames"})
    assert golden["frames"].dtype == np.uint8
    assert len(np.unique(golden["frames"].reshape(FRAMES, -1), axis=0)) == FRAMES


@pytest.mark.parametrize("head", HEADS)
def test_the_outputs_come_from_the_stored_inputs(head: str, golden: dict[str, Any], graphs: dict[str, Any]) -> None:
    inputs = {name.removeprefix(f"{head}."): a for name, a in golden.items() if name.startswith(f"{head}.")}
    outputs = run_head(*graphs[head], inputs, golden["frames"])
    assert np.array_equal(outputs["score"], golden[f"score_{head}"])
    assert np.array_equal(outputs["anomaly_map"], golden[f"anomaly_map_{head}"])
    assert np.array_equal(outputs["patches"], golden["patches"])
    assert len(np.unique(outputs["score"])) == FRAMES


@pytest.mark.parametrize("head", HEADS)
def test_every_input_matters(head: str, golden: dict[str, Any], graphs: dict[str, Any]) -> None:
    """Shuffle one head input: a build that mixes it up must not reproduce the scores."""
    inputs = {name.removeprefix(f"{head}."): a for name, a in golden.items() if name.startswith(f"{head}.")}
    for name, array in inputs.items():
        # Moving both biases by one number changes nothing, and negated and swapped they are moved by one.
        swapped = array[::-1] if name == "group_bias" else -array[::-1]
        wrong = inputs | {name: array * np.float32(0.5) if name == "bank" else np.ascontiguousarray(swapped)}
        outputs = run_head(*graphs[head], wrong, golden["frames"])
        assert not np.allclose(outputs["score"], golden[f"score_{head}"], atol=1e-3), name


def test_both_groups_occur(golden: dict[str, Any]) -> None:
    logits = (golden["embedding"] - golden["padim.group_mean"]) @ golden["padim.group_projection"]
    assert set((logits + golden["padim.group_bias"]).argmax(axis=1)) == set(range(GROUPS))


def test_a_lower_precision_is_compared_with_its_own_outputs(
    golden: dict[str, Any], resnet: EncoderGraph, frames: Any
) -> None:
    model = Quantiser(resnet.model, frames[:16]).build()
    lowered = {
        head: (
            attach_head(model, head, resnet.spec, resnet.preprocess).SerializeToString(),
            graph_spec(head, "int8", resnet.spec, resnet.preprocess),
        )
        for head in HEADS
    }
    found = golden_of_precision(golden, lowered)
    assert set(found) == {"embedding_int8", *(f"score_{head}_int8" for head in HEADS)}
    assert not np.array_equal(found["embedding_int8"], golden["embedding"])
    for graph, spec in lowered.values():
        with open_backend(graph, spec) as backend:
            own, fp32 = (compare(backend, spec, recorded) for recorded in (golden | found, golden))
        assert own.least_cosine == pytest.approx(1.0, abs=1e-6)
        assert own.passed
        assert fp32.least_cosine < own.least_cosine


def test_the_same_arrays_are_the_same_bytes(golden: dict[str, Any]) -> None:
    content = to_npz(golden)
    assert to_npz(golden) == content
    with np.load(io.BytesIO(content), allow_pickle=False) as entries:
        assert all(np.array_equal(entries[name], array) for name, array in golden.items())


def test_spread_takes_both_ends_and_no_place_twice() -> None:
    scores = np.random.default_rng(0).random(20).astype(np.float32)
    places = spread(scores, 8)
    assert len(set(places)) == 8
    assert scores[places[0]] == scores.min()
    assert scores[places[-1]] == scores.max()
    assert (np.diff(scores[places]) > 0).all()


def test_two_clouds_are_two_groups() -> None:
    rng = np.random.default_rng(0)
    clouds = np.concatenate([rng.normal(0, 1, (5, 4)), rng.normal(20, 1, (9, 4))]).astype(np.float32)
    labels = two_groups(clouds)
    assert len(set(labels[:5])) == len(set(labels[5:])) == 1
    assert labels[0] != labels[-1]


def test_equal_embeddings_are_two_groups_as_well() -> None:
    assert set(two_groups(np.ones((4, 3), np.float32))) == {0, 1}
