"""A backend in front of another one that searches large memory banks by itself: on CPUs that beats the graph's product.

The graph computes the patches. Score and map come from PatchSearch: the score equals that of the flat search, the map holds
upper bounds where they do not decide. A graph that is opened for a large bank is cut behind the patches: what its head
computed would be dropped. One that was opened for another recipe keeps its head, which is given a bank of one row. On GPUs
the graph's product is the better way, so only CPU backends are wrapped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.backends import Arrays, Backend
from orinspect_edge_runtime.backends.recipe_inputs import check_inputs
from orinspect_edge_runtime.closing import Closing
from orinspect_edge_runtime.errors import RecipeError
from orinspect_edge_runtime.groups import Groups
from orinspect_edge_runtime.heads import axis_filter
from orinspect_edge_runtime.manifest import GraphSpec
from orinspect_edge_runtime.patch_search import PatchSearch
from orinspect_edge_runtime.whitening import Whitening

# Patches times rows below which the graph's own search is as fast: 2,040 rows for 14x14 patches, 510 for 28x28 (measured
# with 152 numbers a patch on a core with AVX-512).
FEWEST_PAIRS = 400_000
# Outputs that are searched; the others are the head's.
FEATURES = ("embedding", "patches")
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Prepared:
    """A recipe's inputs as the inner backend holds them, and its bank when it is searched here."""

    inputs: Any
    bank: Bank | None


class SearchingBackend(Closing):
    """Runs a graph with the head `patchcore`; large banks are searched here, others there.

    inner: the backend that runs the graph; it is closed with this one. headless: the graph is cut as `features_of` says, and
    every bank is searched here.
    """

    def __init__(self, inner: Backend, spec: GraphSpec, *, headless: bool = False) -> None:
        self._inner, self._spec, self._headless = inner, spec, headless
        self._bank: Bank | None = None
        self.concurrency = inner.concurrency

    @property
    def description(self) -> str:
        """What runs the graph, and how a bank is searched that is not searched there."""
        if self._bank is None:
            return self._inner.description
        return f"{self._inner.description}, {self._bank.size} rows searched in cells"

    @description.setter
    def description(self, text: str) -> None:
        self._inner.description = text

    def set_inputs(self, arrays: Arrays, inspected: NDArray[np.bool_] | None = None) -> None:
        """Make a recipe's arrays resident, and prepare its bank when it is a large one."""
        arrays, bank = self._divided(arrays, inspected)
        self._inner.set_inputs(arrays)
        self._bank = bank

    def prepare(self, arrays: Arrays, inspected: NDArray[np.bool_] | None = None) -> Prepared:
        """Make another recipe's arrays resident for calls of `run`."""
        arrays, bank = self._divided(arrays, inspected)
        return Prepared(self._inner.prepare(arrays), bank)

    def release(self, prepared: Prepared) -> None:
        """Free what `prepare` returned."""
        self._inner.release(prepared.inputs)

    def run(self, frames: NDArray[np.uint8], prepared: Prepared | None = None) -> dict[str, Floats]:
        """Outputs by name for uint8 frames [batch, height, width, 3]."""
        bank = self._bank if prepared is None else prepared.bank
        outputs = self._inner.run(frames, None if prepared is None else prepared.inputs)
        if bank is None:
            return outputs
        found = [bank.score(*image) for image in zip(outputs["embedding"], outputs["patches"], strict=True)]
        scores, maps = zip(*found, strict=True)
        return {**outputs, "score": np.array(scores, np.float32), "anomaly_map": np.stack(maps)}

    def _divided(self, arrays: Arrays, inspected: NDArray[np.bool_] | None) -> tuple[Arrays, Bank | None]:
        """What the graph gets, and the bank that is searched here: all and none when the bank is a small one."""
        check_inputs(arrays, self._spec.inputs)
        if self._headless:
            if not _is_sound(arrays, self._spec):
                raise RecipeError(
                    "the recipe's bank has a group without rows, or values that are no numbers; fit it again"
                )
            return {}, Bank(arrays, self._spec, inspected)
        if not is_worthwhile(arrays, self._spec):
            return arrays, None
        return {**arrays, "bank": arrays["bank"][:, :1]}, Bank(arrays, self._spec, inspected)

    def close(self) -> None:
        """Free the graph and the bank."""
        self._bank = None
        self._inner.close()


class Bank:
    """A recipe's arrays of the head `patchcore`, ready to score images: the head's formulas with another search."""

    def __init__(self, arrays: Arrays, spec: GraphSpec, inspected: NDArray[np.bool_] | None = None) -> None:
        dim = arrays["patch_mean"].shape[0]
        # Rows side by side, as recipes store them: then this is no copy.
        columns = np.ascontiguousarray(arrays["bank"].T, np.float32)
        self.size = len(columns)
        self._searches = [PatchSearch(_rows_of(columns[:, :dim], own)) for own in (columns[:, dim + 1 :] == 0).T]
        mean, projection, bias = (np.asarray(arrays[f"group_{name}"]) for name in ("mean", "projection", "bias"))
        self._groups = Groups(mean, projection, bias, np.zeros(0, np.intp))
        self._offset, self._scale = arrays["score_offset"], arrays["score_scale"]
        self._whitening = Whitening(np.asarray(arrays["patch_mean"]), np.asarray(arrays["patch_projection"]))
        self._is_identity = bool(np.array_equal(arrays["patch_projection"], np.eye(dim)))
        _, height, width = _shape(spec, "anomaly_map")
        self._inspected = inspected
        self._grid = grid_of(spec) or (1, 1)
        self._tall, self._wide = axis_filter(self._grid[0], height), axis_filter(self._grid[1], width)

    def score(self, embedding: Floats, patches: Floats) -> tuple[float, Floats]:
        """Score and map [height, width] of one image's embedding [E] and patches [P, D]; nan for what is no number."""
        if not (np.isfinite(embedding).all() and np.isfinite(patches).all()):
            return float("nan"), np.full((len(self._tall), len(self._wide)), np.nan, np.float32)
        group = int(self._groups.assign(embedding[None])[0])
        seen = patches if self._inspected is None else patches[self._inspected]
        queries = seen - self._whitening.mean if self._is_identity else self._whitening(seen)
        distances = self._searches[group](queries).distances
        scores = (distances - self._offset[group]) * self._scale[group]
        if self._inspected is not None:
            scores, searched = np.full(len(patches), scores.min(), np.float32), scores
            scores[self._inspected] = searched
        return float(scores.max()), self._tall @ scores.reshape(self._grid) @ self._wide.T


def is_worthwhile(arrays: Arrays, spec: GraphSpec) -> bool:
    """Whether a bank is large enough; what is odd (a group without rows, values that are no numbers) the graph judges."""
    pairs = arrays["bank"].shape[1] * _shape(spec, "patches")[1]
    return bool(pairs >= FEWEST_PAIRS and _is_sound(arrays, spec))


def _is_sound(arrays: Arrays, spec: GraphSpec) -> bool:
    reachable = arrays["bank"][arrays["patch_mean"].shape[0] + 1 :] == 0
    whole = grid_of(spec) is not None and bool(reachable.any(axis=1).all())
    return whole and all(bool(np.isfinite(array).all()) for array in arrays.values())


def features_of(spec: GraphSpec) -> GraphSpec:
    """The graph without its head: `frames` to FEATURES."""
    outputs = tuple(output for output in spec.outputs if output.name in FEATURES)
    return replace(spec, inputs=spec.inputs[:1], outputs=outputs)


def _rows_of(rows: Floats, own: NDArray[np.bool_]) -> Floats:
    """The rows of a group; a view of them where they lie together, as `fit` and every edit leave them."""
    first, last = np.flatnonzero(own)[[0, -1]]
    together = slice(first, last + 1)
    return rows[together] if own[together].all() else rows[own]


def grid_of(spec: GraphSpec) -> tuple[int, int] | None:
    """Rows and columns of the patches, which are square; None when the graph's sizes do not say."""
    (_, height, width), (_, positions, _) = _shape(spec, "anomaly_map"), _shape(spec, "patches")
    rows = round((positions * height / width) ** 0.5)
    columns = positions // max(rows, 1)
    return (rows, columns) if rows * columns == positions and rows * width == columns * height else None


def _shape(spec: GraphSpec, name: str) -> tuple[Any, ...]:
    return next(output.shape for output in spec.outputs if output.name == name)
