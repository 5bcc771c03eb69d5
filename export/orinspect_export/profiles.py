"""Optimization profiles: the range of every free dimension that one engine takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.heads import MOST_PROJECTED
from orinspect_edge_runtime.manifest import TensorSpec

Range = tuple[int, int, int]

# Smallest, typical (what TensorRT tunes for) and largest value of each free dimension of heads.py.
DEFAULT_RANGES: dict[str, Range] = {
    "batch": (1, 1, 8),
    "bank_rows": (1, 2000, 50000),
    "groups": (1, 2, 8),
    "factor_columns": (1, MOST_PROJECTED, MOST_PROJECTED),
}


def ranges_for(
    bank_rows: int | None = None,
    groups: int | None = None,
    batch: int | None = None,
    factor_columns: int | None = None,
) -> dict[str, Range]:
    """The default ranges, tuned for a recipe's sizes; a size above the range widens it."""
    found = dict(DEFAULT_RANGES)
    for name, typical in (("bank_rows", bank_rows), ("groups", groups), ("factor_columns", factor_columns)):
        if typical is not None:
            low, _, high = found[name]
            found[name] = (low, typical, max(high, typical))
    if batch is not None:
        found["batch"] = (1, 1, batch)
    return found


def dimension_range(dimension: int | str, ranges: Mapping[str, Range]) -> Range:
    """Range of one dimension of the manifest: a number, a name, or `153+groups`, which is groups moved by 153.

    Raises InputError for a name without a range: the bundle is of a newer orinspect.
    """
    if isinstance(dimension, int):
        return (dimension, dimension, dimension)
    number, plus, name = dimension.rpartition("+")
    if name not in ranges:
        raise InputError(f"the graph's free dimension {name!r} is not known: run  pip install --upgrade orinspect")
    low, typical, high = ranges[name]
    move = int(number) if plus else 0
    return (low + move, typical + move, high + move)


def shapes_of(spec: TensorSpec, ranges: Mapping[str, Range]) -> tuple[tuple[int, ...], ...] | None:
    """Smallest, typical and largest shape of an input; None when it has no free dimension."""
    if all(isinstance(dimension, int) for dimension in spec.shape):
        return None
    columns = [dimension_range(dimension, ranges) for dimension in spec.shape]
    return tuple(tuple(column[which] for column in columns) for which in range(3))


def add_profile(
    trt_builder: Any, config: Any, inputs: Sequence[TensorSpec], ranges: Mapping[str, Range]
) -> dict[str, Range]:
    """Give the engine one profile over all free dimensions. Returns the ranges that the graph really uses.

    Raises InputError when TensorRT does not take it.
    """
    profile = trt_builder.create_optimization_profile()
    used: dict[str, Range] = {}
    for spec in inputs:
        shapes = shapes_of(spec, ranges)
        if shapes is None:
            continue
        profile.set_shape(spec.name, *shapes)
        names = [d.rpartition("+")[2] for d in spec.shape if isinstance(d, str)]
        used |= {name: ranges[name] for name in names}
    if used and config.add_optimization_profile(profile) < 0:
        raise InputError(f"TensorRT refuses the optimization profile {used}: choose other ranges")
    return used
