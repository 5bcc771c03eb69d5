"""From the nodes of a graph to the kernels a TensorRT engine would run: fewer, and moving less.

Rules (approximations of what TensorRT's layer fusion and Myelin do): what only reinterprets memory costs nothing
(Reshape, Concat, Split, Slice, casts, Q/DQ); elementwise nodes, folded norms and transposes join the newest kernel they
read from, so a residual sum reads one tensor more and launches nothing; softmax between two matrix products makes one
attention kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from orinspect_jetson.predictor.layers import ATTENTION, DENSE, DEPTHWISE, GROUPED, MATMUL, MEMORY, POINTWISE, Layer
from orinspect_jetson.predictor.operators import KERNELS, SHAPES, VIEWS


@dataclass(frozen=True)
class Node:
    """A node of a graph. ints: its integer-list attributes (kernel_shape, group, ...)."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ints: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass
class Kernel:
    """A kernel in the making. reads: elements by tensor. outputs: tensors it made."""

    op: str
    kind: int
    product: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    weight: int = 0
    reads: dict[str, int] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)


class Fusion:
    """Walks nodes in order and collects kernels.

    shapes: of every tensor, weights included. weights: names of tensors that stay in memory between inferences.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], weights: frozenset[str]):
        self.shapes, self.weights = shapes, set(weights)
        self.kernels: list[Kernel] = []
        self.owners: dict[str, int] = {}
        self.sources: dict[str, tuple[str, ...]] = {}
        self.users: dict[str, set[int]] = {}

    def start(self, name: str) -> None:
        """A tensor that every inference brings."""
        self.sources[name] = (name,)

    def add(self, node: Node) -> None:
        """The next node, after all nodes that it reads from."""
        live = [name for name in node.inputs if name in self.sources]
        if not live:
            # What is made of weights alone is a weight too: a transposed or dequantised one, a shared one.
            if node.inputs and all(name in self.weights for name in node.inputs if name):
                self.weights.update(node.outputs)
            return
        if node.op in SHAPES:
            return
        if node.op in VIEWS:
            sources = tuple(dict.fromkeys(base for name in live for base in self.sources[name]))
            self.sources.update(dict.fromkeys(node.outputs, sources))
            return
        owners = [self.owners[base] for name in live for base in self.sources[name] if base in self.owners]
        if node.op in KERNELS or not owners:
            number = len(self.kernels)
            self.kernels.append(self._kernel(node, live))
        else:
            number = max(owners)
        kernel = self.kernels[number]
        self._read(number, live)
        if node.op not in KERNELS:
            kernel.weight += sum(self._size(name) for name in node.inputs if name in self.weights)
        for name in node.outputs:
            self.sources[name], self.owners[name] = (name,), number
        kernel.outputs += node.outputs

    def finish(self, outputs: Sequence[str]) -> tuple[list[Layer], int]:
        """(kernels, most activation elements alive at once). outputs: tensors that leave the graph."""
        leaving = {base for name in outputs for base in self.sources.get(name, ())}
        merged = _merge_attention(self)
        writes = [
            sum(self._size(t) for t in k.outputs if t in leaving or self.users.get(t, set()) - {i})
            for i, k in enumerate(self.kernels)
        ]
        layers = []
        for i, kernel in enumerate(self.kernels):
            if i in merged:
                continue
            layers.append(Layer(kernel.kind, *kernel.product, sum(kernel.reads.values()), kernel.weight, writes[i]))
        return layers, self._peak(leaving)

    def _read(self, number: int, live: list[str]) -> None:
        kernel = self.kernels[number]
        for name in live:
            outside = [base for base in self.sources[name] if self.owners.get(base) != number]
            for base in outside:
                self.users.setdefault(base, set()).add(number)
            if outside:
                kernel.reads[name] = self._size(name)

    def _size(self, name: str) -> int:
        return prod(self.shapes.get(name, ()))

    def _kernel(self, node: Node, live: list[str]) -> Kernel:
        if node.op in ("Conv", "ConvTranspose"):
            return self._conv(node)
        if node.op in ("Gemm", "MatMul", "FusedMatMul", "Einsum") and len(node.inputs) >= 2:
            return self._product(node, live)
        return Kernel(node.op, MEMORY, weight=0)

    def _conv(self, node: Node) -> Kernel:
        weight, out = self.shapes[node.inputs[1]], self.shapes[node.outputs[0]]
        if node.op == "ConvTranspose":
            weight, out = (weight[1], weight[0], *weight[2:]), self.shapes[node.inputs[0]]
        groups = node.ints.get("group", (1,))[0]
        taps, channels = prod(weight[2:]), weight[1]
        n = weight[0] if node.op == "ConvTranspose" else weight[0] // groups
        kind = POINTWISE if taps == 1 else DENSE
        if groups > 1:
            kind = DEPTHWISE if channels == 1 else GROUPED
        if node.op == "ConvTranspose":
            channels //= groups
        product = (prod(out[2:]) * out[0], n, channels, taps, groups)
        return Kernel(node.op, kind, product, sum(self._size(name) for name in node.inputs[1:]))

    def _product(self, node: Node, live: list[str]) -> Kernel:
        left, out = self.shapes[node.inputs[0]], self.shapes[node.outputs[0]]
        depth = left[0] if node.op == "Gemm" and node.ints.get("transA", (0,))[0] else left[-1]
        weight = sum(self._size(name) for name in node.inputs if name in self.weights)
        if any(name not in live for name in node.inputs[:2]):
            return Kernel(node.op, POINTWISE, (prod(out[:-1]), out[-1], depth, 1, 1), weight)
        rows = out[-2] if len(out) > 1 else 1
        product = (rows, out[-1], depth, 1, prod(out[:-2]))
        return Kernel(node.op, MATMUL, product, weight)

    def _peak(self, leaving: set[str]) -> int:
        """Elements alive while each kernel runs: what it or a later one reads, and what it writes."""
        change = [0] * (len(self.kernels) + 1)
        for tensor, number in self.owners.items():
            users = self.users.get(tensor, set()) - {number}
            if users or tensor in leaving:
                change[number] += self._size(tensor)
                change[len(self.kernels) if tensor in leaving else max(users) + 1] -= self._size(tensor)
        alive, most = 0, 0
        for step in change:
            alive += step
            most = max(most, alive)
        return most


def _merge_attention(fusion: Fusion) -> set[int]:
    """Join product, softmax, product into the last of the three; gives the numbers of the two that vanish."""
    gone: set[int] = set()
    for last, kernel in enumerate(fusion.kernels):
        if kernel.kind != MATMUL:
            continue
        for soft in _feeding(fusion, kernel, "Softmax"):
            first = next((i for i in _feeding(fusion, fusion.kernels[soft], "MatMul") if i not in gone), None)
            if first is None or fusion.kernels[first].kind != MATMUL:
                continue
            _join(fusion, first, soft, last)
            gone |= {first, soft}
            break
    return gone


def _feeding(fusion: Fusion, kernel: Kernel, op: str) -> list[int]:
    found = [fusion.owners[b] for name in kernel.reads for b in fusion.sources[name] if b in fusion.owners]
    return [number for number in found if fusion.kernels[number].op == op]


def _join(fusion: Fusion, first: int, soft: int, last: int) -> None:
    head, middle, tail = (fusion.kernels[i] for i in (first, soft, last))
    inner = {first, soft}
    reads = {
        name: size
        for name, size in [*head.reads.items(), *middle.reads.items(), *tail.reads.items()]
        if not any(fusion.owners.get(base) in inner for base in fusion.sources[name])
    }
    m, n, depth, _, groups = head.product
    # One product of the same work: the keys' width plus the values' width, over rows x columns of scores.
    values = prod(tail.product) // max(m * n * groups, 1)
    tail.product = (m, n, depth + values, 1, groups)
    tail.kind, tail.reads, tail.weight = ATTENTION, reads, head.weight + tail.weight
