"""Graphs small enough to count their kernels by hand."""

from __future__ import annotations

from orinspect_jetson.predictor.fusion import Fusion, Node
from orinspect_jetson.predictor.layers import ATTENTION, DENSE, DEPTHWISE, GROUPED, MATMUL, MEMORY, POINTWISE, Layer

MAP = (1, 8, 16, 16)
SIZE = 8 * 16 * 16


def fuse(nodes: list[Node], shapes: dict[str, tuple[int, ...]], outputs: list[str]) -> tuple[list[Layer], int]:
    weights = frozenset(name for name in shapes if name.startswith("w"))
    fusion = Fusion(shapes, weights)
    fusion.start("x")
    for node in nodes:
        fusion.add(node)
    return fusion.finish(outputs)


def node(op: str, inputs: str, output: str, **ints: tuple[int, ...]) -> Node:
    return Node(op, tuple(inputs.split()), (output,), ints)


def test_convolution_with_silu_and_residual_is_one_kernel() -> None:
    shapes = {"x": MAP, "w": (8, 8, 3, 3), "wb": (8,), "c": MAP, "s": MAP, "m": MAP, "y": MAP}
    nodes = [node("Conv", "x w wb", "c"), node("Sigmoid", "c", "s"), node("Mul", "c s", "m"), node("Add", "m x", "y")]
    layers, peak = fuse(nodes, shapes, ["y"])
    assert layers == [Layer(DENSE, 256, 8, 8, 9, 1, SIZE, 8 * 8 * 9 + 8, SIZE)]
    assert layers[0].macs == 256 * 8 * 8 * 9
    assert peak == SIZE


def test_residual_of_two_convolutions_reads_the_older_one() -> None:
    shapes = {"x": MAP, "w1": (8, 8, 1, 1), "w2": (8, 8, 1, 1), "a": MAP, "b": MAP, "y": MAP}
    nodes = [node("Conv", "x w1", "a"), node("Conv", "x w2", "b"), node("Add", "a b", "y")]
    layers, peak = fuse(nodes, shapes, ["y"])
    assert [(x.kind, x.read, x.write) for x in layers] == [(POINTWISE, SIZE, SIZE), (POINTWISE, 2 * SIZE, SIZE)]
    assert peak == 2 * SIZE


def test_kinds_of_convolution() -> None:
    shapes = {"x": MAP, "wd": (8, 1, 3, 3), "wg": (8, 4, 3, 3), "d": MAP, "g": MAP}
    nodes = [node("Conv", "x wd", "d", group=(8,)), node("Conv", "d wg", "g", group=(2,))]
    layers, _ = fuse(nodes, shapes, ["g"])
    assert [x.kind for x in layers] == [DEPTHWISE, GROUPED]
    assert [x.macs for x in layers] == [256 * 8 * 9, 256 * 8 * 4 * 9]


def test_transposed_convolution_counts_every_input_pixel() -> None:
    shapes = {"x": MAP, "w": (8, 4, 2, 2), "y": (1, 4, 32, 32)}
    layers, _ = fuse([node("ConvTranspose", "x w", "y")], shapes, ["y"])
    assert layers[0].macs == 16 * 16 * 8 * 4 * 4


def test_views_cost_nothing_and_keep_their_source() -> None:
    shapes = {"x": MAP, "w": (8, 8, 1, 1), "a": MAP, "r": (1, 8, 256), "q": (1, 8, 256), "p": MAP}
    nodes = [node("Conv", "x w", "a"), node("Reshape", "a", "r"), node("QuantizeLinear", "r", "q")]
    layers, _ = fuse([*nodes, node("MaxPool", "q", "p")], shapes, ["p"])
    assert [(x.kind, x.read, x.write) for x in layers] == [(POINTWISE, SIZE, SIZE), (MEMORY, SIZE, SIZE)]


def attention(values_first: bool) -> tuple[list[Node], dict[str, tuple[int, ...]]]:
    heads, length, key = 2, 64, 16
    rows = (1, heads, length, key)
    shapes = {"x": rows, "t": (1, heads, key, length), "s": (1, heads, length, length), "p": (1, heads, length, length)}
    out = (1, heads, key, length) if values_first else rows
    nodes = [
        node("Transpose", "x", "t"),
        node("MatMul", "x t", "s"),
        node("Mul", "s w", "s2"),
        node("Softmax", "s2", "p"),
    ]
    last = node("MatMul", "t p", "y") if values_first else node("MatMul", "p x", "y")
    return [*nodes, last], {**shapes, "s2": shapes["s"], "w": (), "y": out}


def test_attention_is_one_kernel_without_its_scores() -> None:
    for values_first in (False, True):
        nodes, shapes = attention(values_first)
        layers, _ = fuse(nodes, shapes, ["y"])
        merged = [x for x in layers if x.kind == ATTENTION]
        assert len(merged) == 1
        assert not [x for x in layers if x.kind == MATMUL]
        assert merged[0].macs == 2 * 2 * 64 * 64 * 16
        assert merged[0].read < 2 * 64 * 64
        assert merged[0].write == 2 * 64 * 16


def test_product_with_a_made_weight_is_pointwise_and_loads_it() -> None:
    shapes = {"x": (1, 10, 32), "wq": (64, 32), "wd": (64, 32), "wt": (32, 64), "y": (1, 10, 64)}
    del shapes["wt"]
    shapes["t"] = (32, 64)
    nodes = [node("DequantizeLinear", "wq", "d"), node("Transpose", "d", "t"), node("MatMul", "x t", "y")]
    layers, _ = fuse(nodes, {**shapes, "d": (64, 32)}, ["y"])
    assert layers == [Layer(POINTWISE, 10, 64, 32, 1, 1, 320, 64 * 32, 640)]


def test_peak_counts_a_skip_connection() -> None:
    shapes = {"x": MAP, "w": (8, 8, 1, 1), "a": MAP, "b": MAP, "c": MAP, "y": (1, 16, 16, 16)}
    nodes = [node("Conv", "x w", "a"), node("Conv", "a w", "b"), node("Conv", "b w", "c"), node("Concat", "a c", "y")]
    layers, peak = fuse(nodes, shapes, ["y"])
    assert len(layers) == 3
    assert peak == 3 * SIZE
