"""Graphs cut down to some of their outputs: the same numbers, none of the other nodes, and no crash on damaged bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orinspect_edge_runtime.backends.cut_graph import cut_graph
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.heads import neutral_inputs

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")


def test_what_is_kept_computes_the_same_numbers(real_bundle: Path) -> None:
    import onnxruntime

    bundle = Bundle.open(real_bundle)
    spec = bundle.manifest.graphs[0]
    whole = bundle.read(spec.file)
    cut = cut_graph(whole, ("embedding", "patches"))
    onnx.checker.check_model(onnx.load_from_string(cut))
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    sessions = [onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]) for graph in (whole, cut)]
    assert [value.name for value in sessions[1].get_inputs()] == ["frames"]
    assert {value.name for value in sessions[1].get_outputs()} == {"embedding", "patches"}
    head = neutral_inputs(spec.head, bundle.manifest.encoder)
    for name in ("embedding", "patches"):
        before = sessions[0].run([name], {"frames": frames, **head})[0]
        np.testing.assert_array_equal(sessions[1].run([name], {"frames": frames})[0], before)


@given(st.data())
def test_kept_are_the_nodes_that_the_outputs_need(data: st.DataObject) -> None:
    """Against reachability on random graphs of sums, some with an input or output left away."""
    values, nodes = ["first", "second"], []
    for number in range(data.draw(st.integers(1, 8))):
        used = data.draw(st.lists(st.sampled_from([*values, ""]), min_size=1, max_size=3))
        nodes.append(onnx.helper.make_node("Sum", used, [f"v{number}", ""], name=f"n{number}"))
        values.append(f"v{number}")
    asked = data.draw(st.lists(st.sampled_from(values[2:]), min_size=1, unique=True))
    shaped = {name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in values}
    graph = onnx.helper.make_graph(
        nodes, "sums", [shaped["first"], shaped["second"]], [shaped[name] for name in values[2:]]
    )
    cut = onnx.load_from_string(cut_graph(onnx.helper.make_model(graph).SerializeToString(), tuple(asked))).graph
    needed = set(asked)
    for node in reversed(nodes):
        if node.output[0] in needed:
            needed |= set(node.input)
    assert [node.name for node in cut.node] == [node.name for node in nodes if node.output[0] in needed]
    assert [value.name for value in cut.output] == [name for name in values[2:] if name in asked]
    assert [value.name for value in cut.input] == [name for name in ("first", "second") if name in needed]


@given(
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8), size=st.floats(0, 1)
)
def test_damaged_bytes_are_an_error_or_a_graph(damage: list[tuple[float, int]], size: float) -> None:
    node = onnx.helper.make_node("Sum", ["a", "b"], ["c"])
    shaped = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "abc"]
    whole = onnx.helper.make_model(onnx.helper.make_graph([node], "sum", shaped[:2], shaped[2:])).SerializeToString()
    content = bytearray(whole[: round(size * len(whole))])
    for place, value in damage:
        if content:
            content[int(place * len(content))] = value
    try:
        assert isinstance(cut_graph(bytes(content), ("c",)), bytes)
    except ValueError as error:
        assert "ONNX" in str(error)
