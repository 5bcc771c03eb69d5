"""Layer tables: their JSON form, the packaged ones, and what damaged files are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orinspect_edge_runtime.errors import InputError
from orinspect_jetson.predictor.layers import (
    KINDS,
    Layer,
    from_json,
    published_tables,
    read_table,
    table_of,
    to_json,
)

sizes = st.integers(0, 2**40)
layers = st.lists(st.builds(Layer, st.integers(0, len(KINDS) - 1), *[sizes] * 8), min_size=1, max_size=8)


@given(layers, sizes, sizes, st.lists(sizes, max_size=4))
def test_round_trip(some: list[Layer], parameters: int, peak: int, shape: list[int]) -> None:
    table = table_of("net", [*some, some[0]], parameters, peak, shape)
    assert table.kernels == len(some) + 1
    assert table.macs == sum(x.macs for x in [*some, some[0]])
    assert from_json(json.loads(json.dumps(to_json(table))), "here") == table


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["format", "layers", "name"]), inner),
    max_leaves=8,
)


@given(anything)
def test_anything_else_is_an_input_error(value: object) -> None:
    with pytest.raises(InputError, match="not a layer table"):
        from_json(value, "here")


@pytest.mark.parametrize("change", [{"format": 2}, {"layers": []}, {"layers": [[1, 9, 1, 1, 1, 1, 1, 1, 1, 1]]},
                                    {"peak": -1}, {"shape": [1.5]}, {"layers": [[1, 2]]}])  # fmt: skip
def test_damaged_tables_are_refused(change: dict[str, object]) -> None:
    good = to_json(table_of("net", [Layer(0, 1, 1, 1, 1, 1, 1, 1, 1)], 1, 1, (3,)))
    assert from_json(good, "here").macs == 1
    with pytest.raises(InputError, match="not a layer table"):
        from_json({**good, **change}, "here")


def test_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    file = tmp_path / "net.json"
    file.write_bytes(b"\xff{")
    with pytest.raises(InputError, match=r"net\.json"):
        read_table(file)


def test_nothing_to_predict() -> None:
    with pytest.raises(InputError, match="nothing to predict"):
        table_of("net", [], 0, 0, ())


def test_packaged_tables_have_the_published_sizes() -> None:
    # parameters (1e6) and GMAC as their authors publish them; YOLO FLOPs are twice the MACs.
    published = {"resnet50": (25.6, 4.1), "YOLO11n": (2.6, 3.25), "YOLO26x": (55.7, 96.95), "YOLOv8n": (3.2, 4.35),
                 "EfficientViT-SAM-L0 encoder": (31, 35), "EfficientViT-B1 cls 224": (9.1, 0.52)}  # fmt: skip
    for name, (parameters, gmac) in published.items():
        table = published_tables()[name]
        assert table.parameters / 1e6 == pytest.approx(parameters, rel=0.05)
        assert table.macs / 1e9 == pytest.approx(gmac, rel=0.05)


def test_resnet50_has_its_53_convolutions_a_product_and_two_poolings() -> None:
    table = published_tables()["resnet50"]
    assert table.kernels == 53 + 1 + 2
    assert sum(table.share(kind) for kind in range(len(KINDS))) == pytest.approx(1)
