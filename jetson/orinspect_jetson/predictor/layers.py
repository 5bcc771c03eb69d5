"""Layer tables: the kernels of a network after fusion, with their shapes. All the predictor knows about a network."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from orinspect_edge_runtime.errors import InputError

DENSE, POINTWISE, GROUPED, DEPTHWISE, MATMUL, ATTENTION, MEMORY = range(7)
KINDS = ("dense conv", "pointwise", "grouped conv", "depthwise", "matmul", "attention", "norm/elementwise")
FORMAT = 1


@dataclass(frozen=True)
class Layer:
    """One kernel as a matrix product, for one image: [m, channels * taps] x [channels * taps, n], `groups` times.

    kind: an index of KINDS. read, weight, write: elements moved from and to memory. A kernel without a product
    (pooling, softmax, resize) has m = n = channels = taps = 0.
    """

    kind: int
    m: int
    n: int
    channels: int
    taps: int
    groups: int
    read: int
    weight: int
    write: int

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations."""
        return self.m * self.n * self.channels * self.taps * self.groups


@dataclass(frozen=True)
class LayerTable:
    """A network. shape: of its input, without the batch. counts: how often each layer occurs.

    parameters: elements of all weights. peak: activation elements alive at once, at most.
    """

    name: str
    family: str
    origin: str
    shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    counts: tuple[int, ...]
    parameters: int
    peak: int

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations for one image."""
        return sum(layer.macs * count for layer, count in zip(self.layers, self.counts, strict=True))

    @property
    def kernels(self) -> int:
        """Kernels launched for one inference."""
        return sum(self.counts)

    def share(self, kind: int) -> float:
        """Part of the multiply-accumulate operations that lies in one kind of layer (0..1)."""
        mine = sum(x.macs * n for x, n in zip(self.layers, self.counts, strict=True) if x.kind == kind)
        return mine / (self.macs or 1)


def table_of(name: str, layers: Iterable[Layer], parameters: int, peak: int, shape: Iterable[int]) -> LayerTable:
    """A table from single kernels: equal ones are counted together. Its family is not known. Raises InputError."""
    found = Counter(layers)
    if not found:
        raise InputError(f"{name}: no layer depends on the graph's input, so there is nothing to predict")
    return LayerTable(name, "", "", tuple(shape), tuple(found), tuple(found.values()), parameters, peak)


def to_json(table: LayerTable) -> dict[str, Any]:
    """A table as plain JSON values, one short row a layer."""
    rows = [[count, *astuple(layer)] for layer, count in zip(table.layers, table.counts, strict=True)]
    kept = {key: value for key, value in asdict(table).items() if key not in ("layers", "counts")}
    columns = ["count", *(field.name for field in fields(Layer))]
    return {"format": FORMAT, **kept, "shape": list(table.shape), "columns": columns, "layers": rows}


def from_json(value: Any, where: str) -> LayerTable:
    """Inverse of to_json. Raises InputError naming the file for anything else."""
    try:
        if value["format"] != FORMAT or not value["layers"]:
            raise ValueError(f"format {value['format']!r}")
        rows = [[_natural(cell) for cell in row] for row in value["layers"]]
        layers = tuple(Layer(*row[1:]) for row in rows)
        if any(layer.kind >= len(KINDS) for layer in layers):
            raise ValueError("a kind of layer that is not known")
        name, family, origin = (str(value[key]) for key in ("name", "family", "origin"))
        shape = tuple(_natural(size) for size in value["shape"])
        parameters, peak = _natural(value["parameters"]), _natural(value["peak"])
        return LayerTable(name, family, origin, shape, layers, tuple(row[0] for row in rows), parameters, peak)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(
            f"{where}: not a layer table ({error}); give an .onnx file, a bundle or a known model"
        ) from error


def read_table(path: Path) -> LayerTable:
    """The layer table in a JSON file. Raises InputError."""
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as a layer table ({error})") from error


@functools.cache
def published_tables() -> dict[str, LayerTable]:
    """Tables of the networks whose latency others have published, by name."""
    file = resources.files("orinspect_jetson").joinpath("data/predictor/layers.json")
    rows = json.loads(file.read_text(encoding="utf-8"))["tables"]
    return {row["name"]: from_json(row, "layers.json") for row in rows}


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a natural number")
    return value
