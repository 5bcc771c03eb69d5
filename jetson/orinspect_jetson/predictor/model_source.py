"""What MODEL on the command line means: an ONNX file, a bundle, a layer table, or a published network's name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.heads import covariance_dim
from orinspect_edge_runtime.manifest import GraphSpec
from orinspect_jetson.predictor.layers import LayerTable, published_tables, read_table

# Sizes of a bundle's free axes when no one says them: one kind of good image, a usual memory bank.
BUNDLE_SIZES = {"groups": 1, "bank_rows": 1000}
FRAMES = "frames"


def read_model(text: str, head: str | None = None, sizes: Mapping[str, int] | None = None) -> LayerTable:
    """The layer table of MODEL. Raises InputError naming what would be understood."""
    path = Path(text)
    if (path / "manifest.json").is_file():
        return _bundle(path, head, {**BUNDLE_SIZES, **(sizes or {})})
    if path.suffix == ".json" and path.is_file():
        return read_table(path)
    if path.is_file():
        from orinspect_jetson.predictor.onnx_graph import read_onnx

        return replace(read_onnx(path, sizes=sizes), name=path.name)
    known = {name.lower(): name for name in published_tables()}
    if text.lower() in known:
        return published_tables()[known[text.lower()]]
    near = difflib.get_close_matches(text.lower(), known, n=3)
    hint = f"; published networks with a like name: {', '.join(known[n] for n in near)}" if near else ""
    raise InputError(f"{text}: no such file; give an .onnx file, a bundle or a published network{hint}")


def _bundle(path: Path, head: str | None, sizes: Mapping[str, int]) -> LayerTable:
    from orinspect_edge_runtime.bundle import Bundle
    from orinspect_jetson.predictor.onnx_graph import read_onnx

    graphs = Bundle.open(path).manifest.graphs
    heads = list(dict.fromkeys(graph.head for graph in graphs))
    wanted = head or heads[0]
    # Any precision describes the same layers; FP32 has no Q/DQ nodes to look through.
    found = sorted((g for g in graphs if g.head == wanted), key=lambda g: g.precision != "fp32")
    if not found:
        raise InputError(f"{path} has no head {wanted!r} (it has: {', '.join(heads)})")
    resident = frozenset(tensor.name for tensor in found[0].inputs if tensor.name != FRAMES)
    table = read_onnx(path / found[0].file, resident, {**_full_covariances(found[0]), **sizes})
    return replace(table, name=f"{path.name} ({wanted})")


def _full_covariances(graph: GraphSpec) -> dict[str, int]:
    """The size of the padim head's own free axis: as many columns as dimensions."""
    dim = covariance_dim(graph.inputs)
    return {} if dim is None else {"factor_columns": dim}
