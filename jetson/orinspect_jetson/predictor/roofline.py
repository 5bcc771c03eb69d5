"""Time of a network from its layers: each is bound by arithmetic or by memory, and costs a launch.

    t_gpu     = sum over kernels of (t_compute^p + t_memory^p)^(1/p) + gap
    t_compute = 2 macs / (efficiency of the kind x peak) + one pass through the depth of a tile
    t_enqueue = kernels x launch                     (the CPU's side; nothing for a CUDA graph)
    t         = t_harness + (t_gpu^q + t_enqueue^q)^(1/q)

after the roofline of Williams, Waterman and Patterson (2009), with p = 3 and q = 4: what overlaps does so, but not for
free. The depth of a tile is what keeps small products from using a large GPU: one tile takes its time however many
processors idle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_jetson.predictor.layers import DENSE, DEPTHWISE, KINDS, MATMUL, MEMORY, POINTWISE, LayerTable
from orinspect_jetson.predictor.operating_point import OperatingPoint

Floats = NDArray[np.float64]
PRECISIONS = ("fp32", "fp16", "int8")
# By precision: dense operations a clock and multiprocessor of SM 8.7 (TF32, FP16, INT8 tensor cores; CUDA cores, which
# run depthwise convolutions), bytes an element, and the channels a tensor core takes at once.
TENSOR_OPS = np.array([1024.0, 2048.0, 4096.0])
CUDA_OPS = np.array([256.0, 512.0, 1024.0])
BYTES = np.array([4.0, 2.0, 1.0])
VECTOR = np.array([4.0, 8.0, 32.0])
TILE = 64 * 64
OVERLAP = 3.0
QUEUE_OVERLAP = 4.0
# graph: replayed as a CUDA graph. engine: launched kernel by kernel. transfers: and input copied from the host.
# python: and called from Python.
HARNESSES = ("graph", "engine", "transfers", "python")
CPU_MHZ = 2000.0

# name: (start, standard deviation of its logarithm). Starts are ordinary values for tensor-core GPUs; the spread says
# how far the published rows may move each, and keeps what they do not determine where it started.
PRIORS: dict[str, tuple[float, float]] = {
    "dense": (0.5, 0.4),
    "pointwise": (0.4, 0.4),
    "grouped": (0.1, 0.5),
    "depthwise": (0.3, 0.5),
    "matmul": (0.3, 0.5),
    "attention": (0.3, 0.5),
    "fp32": (0.9, 0.2),
    "int8": (0.8, 0.2),
    "bandwidth": (0.7, 0.25),
    "gap_kilocycles": (2.0, 0.5),
    "graph_gap": (0.4, 0.4),
    "launch_us": (8.0, 0.5),
    "tile": (1.0, 0.6),
    "engine_ms": (0.05, 0.7),
    "python_ms": (0.6, 0.5),
    "copy_gb_s": (12.0, 0.5),
}
NAMES = tuple(PRIORS)


@dataclass(frozen=True)
class Breakdown:
    """Milliseconds of one inference. compute_ms, memory_ms: of the kernels each bounds; gap_ms: between kernels.

    by_kind: in the order of layers.KINDS, gaps included. enqueue_ms: time the CPU needs to launch the kernels, which
    overlaps with the GPU's. fixed_ms: of the harness.
    """

    total_ms: float
    compute_ms: float
    memory_ms: float
    gap_ms: float
    enqueue_ms: float
    fixed_ms: float
    by_kind: tuple[float, ...]


@dataclass(frozen=True)
class Work:
    """A table at a batch size and precision as arrays, one value a layer: what does not depend on the coefficients.

    precision: index of PRECISIONS that the layer itself runs in. bytes: moved. input_bytes: of the FP32 input.
    """

    kind: NDArray[np.int64]
    precision: NDArray[np.int64]
    count: Floats
    operations: Floats
    depth: Floats
    bytes: Floats
    input_bytes: float


@dataclass(frozen=True)
class Load:
    """Works at their operating points, end to end in one array each. first: where each work starts."""

    work: Work
    first: NDArray[np.int64]
    cycles_a_ms: Floats
    ops_a_ms: Floats
    bytes_a_ms: Floats
    is_graph: NDArray[np.bool_]
    kernels: Floats
    cpu_scale: Floats
    input_bytes: Floats
    harness: NDArray[np.int64]


def work_of(table: LayerTable, precision: str, batch: int) -> Work:
    """Arithmetic and traffic of every layer of a table. Norms and attention stay FP16 in an INT8 engine."""
    raw: Any = np.array(
        [[x.kind, x.m, x.n, x.channels, x.taps, x.groups, x.read, x.weight, x.write] for x in table.layers], dtype=float
    )
    kind, m, n, channels, taps, groups, read, weight, write = raw.T
    wanted = PRECISIONS.index(precision)
    runs_in = np.where(kind >= MATMUL, min(wanted, 1), wanted).astype(np.int64)
    padded = (kind == DENSE) | (kind == POINTWISE)
    vector = VECTOR[runs_in]
    depth = np.where(padded, np.ceil(channels / vector) * vector, channels) * taps
    operations = 2.0 * batch * m * np.where(padded, np.ceil(n / 8) * 8, n) * depth * groups
    elements = float(np.prod(np.array(table.shape, dtype=float))) * batch
    counts, moved = np.array(table.counts, float), BYTES[runs_in] * (batch * (read + write) + weight)
    return Work(kind.astype(np.int64), runs_in, counts, operations, depth, moved, 4 * elements)


def load_of(works: Sequence[Work], points: Sequence[OperatingPoint], harnesses: Sequence[str]) -> Load:
    """Lay works end to end with the peaks of their operating points."""
    sizes = [len(work.kind) for work in works]

    def each(values: list[float]) -> Floats:
        return np.repeat(np.array(values, float), sizes)

    def joined(name: str) -> Any:
        return np.concatenate([getattr(work, name) for work in works])

    names = ("kind", "precision", "count", "operations", "depth", "bytes")
    whole = Work(**{name: joined(name) for name in names}, input_bytes=0.0)
    ops = np.where(whole.kind == DEPTHWISE, CUDA_OPS[whole.precision], TENSOR_OPS[whole.precision])
    cycles = each([point.gpu_mhz * 1e3 for point in points])
    return Load(
        work=whole,
        first=np.cumsum([0, *sizes[:-1]]),
        cycles_a_ms=cycles,
        ops_a_ms=ops * cycles * each([point.sm for point in points]),
        bytes_a_ms=each([point.bandwidth_gb_s * 1e6 for point in points]),
        is_graph=np.repeat(np.array([harness == "graph" for harness in harnesses]), sizes),
        kernels=np.array([work.count.sum() for work in works]),
        cpu_scale=np.array([CPU_MHZ / point.cpu_mhz for point in points]),
        input_bytes=np.array([work.input_bytes for work in works]),
        harness=np.array([HARNESSES.index(harness) for harness in harnesses]),
    )


def layer_times(load: Load, values: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """(compute, memory, both overlapped, the gap after it) of every layer in ms, each once. values: of NAMES."""
    value = dict(zip(NAMES, values, strict=True))
    work = load.work
    efficiency = np.array([*values[:MEMORY], 1.0])[work.kind]
    relative = np.array([value["fp32"], 1.0, value["int8"]])[work.precision]
    busy = work.operations / (efficiency * relative * load.ops_a_ms)
    tile_cycles = work.depth * 2 * TILE / (TENSOR_OPS[work.precision] * relative)
    tile = np.where(work.kind == DEPTHWISE, 0.0, value["tile"] * tile_cycles / load.cycles_a_ms)
    compute = busy + tile
    memory = work.bytes / (value["bandwidth"] * load.bytes_a_ms)
    gap = value["gap_kilocycles"] * 1e3 / load.cycles_a_ms * np.where(load.is_graph, value["graph_gap"], 1.0)
    return compute, memory, (compute**OVERLAP + memory**OVERLAP) ** (1 / OVERLAP), gap


def host_times(load: Load, values: Floats) -> tuple[Floats, Floats]:
    """(enqueue, fixed) of every work in ms."""
    value = dict(zip(NAMES, values, strict=True))
    enqueue = np.where(load.harness > 0, load.kernels * value["launch_us"] / 1e3 * load.cpu_scale, 0.0)
    copies = load.input_bytes / (value["copy_gb_s"] * 1e6)
    extra = np.where(load.harness == 2, copies, np.where(load.harness == 3, value["python_ms"] * load.cpu_scale, 0.0))
    return enqueue, value["engine_ms"] + extra


def totals(load: Load, values: Floats) -> Floats:
    """Milliseconds of every work."""
    _, _, both, gap = layer_times(load, values)
    gpu = np.add.reduceat(load.work.count * (both + gap), load.first)
    enqueue, fixed = host_times(load, values)
    total: Floats = fixed + (gpu**QUEUE_OVERLAP + enqueue**QUEUE_OVERLAP) ** (1 / QUEUE_OVERLAP)
    return total


def breakdown(work: Work, point: OperatingPoint, values: Floats, harness: str = "graph") -> Breakdown:
    """Where the time of one work goes."""
    load = load_of([work], [point], [harness])
    compute, memory, both, gap = layer_times(load, values)
    each = work.count * both
    enqueue, fixed = host_times(load, values)
    kinds = np.bincount(work.kind, weights=each + work.count * gap, minlength=len(KINDS))
    return Breakdown(
        total_ms=float(totals(load, values)[0]),
        compute_ms=float(each[compute > memory].sum()),
        memory_ms=float(each[compute <= memory].sum()),
        gap_ms=float((work.count * gap).sum()),
        enqueue_ms=float(enqueue[0]),
        fixed_ms=float(fixed[0]),
        by_kind=tuple(float(x) for x in kinds),
    )
