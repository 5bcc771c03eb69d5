"""Maps with masks as arrays of a part's file (parts.py), and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.localisation import MaskedMap


def entries_of(maps: Sequence[MaskedMap]) -> dict[str, NDArray[Any]]:
    """Entries for some maps: pixels of all behind one another, and how many each has."""
    return {
        "map_kind": np.array([one.kind for one in maps], np.str_),
        "map_regions": np.array([one.regions for one in maps], np.int64),
        "map_sizes": np.array([(len(one.marked), len(one.unmarked)) for one in maps], np.int64).reshape(-1, 2),
        "marked": _joined([one.marked for one in maps], np.float32),
        "weights": _joined([one.weights for one in maps], np.float64),
        "unmarked": _joined([one.unmarked for one in maps], np.float32),
    }


def read_maps(file: Path) -> Iterator[MaskedMap]:
    """The maps in a part's file, in order."""
    with np.load(file, allow_pickle=False) as entries:
        ends = np.cumsum(entries["map_sizes"], axis=0)[:-1].T
        marked, weights = (np.split(entries[name], ends[0]) for name in ("marked", "weights"))
        unmarked = np.split(entries["unmarked"], ends[1])
        kinds, regions = entries["map_kind"].tolist(), entries["map_regions"].tolist()
    for one in zip(kinds, marked, weights, regions, unmarked, strict=False):
        yield MaskedMap(*one)


def _joined(arrays: Sequence[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype, copy=False)
