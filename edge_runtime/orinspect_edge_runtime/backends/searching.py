"""A backend in front of another one that searches memory banks by itself, where the graph cannot or should not.

It cannot by another rule than its own (bank_rule.py); and on CPUs a large bank is searched faster here. The graph computes
the patches. Score and map come from PatchSearch: the score equals that of the flat search, the map holds upper bounds where
they do not decide. With several neighbours every patch is searched in the whole bank. A graph that is opened on a CPU for
a bank to be searched here is cut behind the patches: what its head computed would be dropped. One that was opened for
another recipe, or on a GPU, keeps its head, which is given a bank of one row.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.backends import Arrays, Backend
from orinspect_edge_runtime.backends.recipe_inputs import check_inputs
from orinspect_edge_runtime.bank_rule import HOST_ARRAYS, BankRule
from orinspect_edge_runtime.closing import Closing
from orinspect_edge_runtime.errors import RecipeError
from orinspect_edge_runtime.groups import Groups
from orinspect_edge_runtime.heads import axis_filter
from orinspect_edge_runtime.manifest import GraphSpec
from orinspect_edge_runtime.patch_search import PatchSearch
from orinspect_edge_runtime.scorers.patchcore import rows_of
from orinspect_edge_runtime.whitening import Whitening

if TYPE_CHECKING:
    from orinspect_edge_runtime.backends.tensorrt import TensorRTBackend

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
    """Runs a graph with the head `patchcore`; banks with a rule that is not the graph's are searched here.

    inner: the backend that runs the graph; it is closed with this one. large_here: large banks are searched here as well.
    headless: the graph is cut as `features_of` says, and every bank is searched here.
    """

    def __init__(self, inner: Backend, spec: GraphSpec, *, large_here: bool = True, headless: bool = False) -> None:
        self._inner, self._spec, self._large_here, self._headless = inner, spec, large_here, headless
        self._bank: Bank | None = None
        self.concurrency = inner.concurrency

    @property
    def description(self) -> str:
        """What runs the graph, and how a bank is searched that is not searched there."""
        if self._bank is None:
            return self._inner.description
        return f"{self._inner.description}, {self._bank.description}"

    @description.setter
    def description(self, text: str) -> None:
        self._inner.description = text

    def set_inputs(self, arrays: Arrays) -> None:
        """Make a recipe's arrays resident, and prepare its bank when it is searched here."""
        inputs, bank = self._divided(arrays)
        self._inner.set_inputs(inputs)
        self._bank = bank

    def prepare(self, arrays: Arrays) -> Prepared:
        """Make another recipe's arrays resident for calls of `run`."""
        inputs, bank = self._divided(arrays)
        return Prepared(self._inner.prepare(inputs), bank)

    def release(self, prepared: Prepared) -> None:
        """Free what `prepare` returned."""
        self._inner.release(prepared.inputs)

    def run(self, frames: NDArray[np.uint8], prepared: Prepared | None = None) -> dict[str, Floats]:
        """Outputs by name for uint8 frames [batch, height, width, 3]."""
        bank = self._bank if prepared is None else prepared.bank
        outputs = self._inner.run(frames, None if prepared is None else prepared.inputs)
        return outputs if bank is None else outputs | bank.outputs(outputs["embedding"], outputs["patches"])

    def _divided(self, arrays: Arrays) -> tuple[Arrays, Bank | None]:
        """What the graph gets, and the bank that is searched here: all and none when the graph searches it."""
        inputs = {name: array for name, array in arrays.items() if name not in HOST_ARRAYS}
        check_inputs(inputs, self._spec.inputs)
        if not self._headless and BankRule.of(arrays).in_graph:
            if not (self._large_here and is_large(inputs, self._spec)):
                return inputs, None
        elif not _is_sound(inputs, self._spec):
            raise RecipeError("the recipe's bank has a group without rows, or values that are no numbers; fit it again")
        bank = Bank(arrays, self._spec)
        return {} if self._headless else {**inputs, "bank": inputs["bank"][:, :1]}, bank

    def close(self) -> None:
        """Free the graph and the bank."""
        self._bank = None
        self._inner.close()


class SearchingEngine(SearchingBackend):
    """In front of an engine: the GPU searches large banks faster."""

    def __init__(self, inner: TensorRTBackend, spec: GraphSpec) -> None:
        super().__init__(inner, spec, large_here=False)
        self._engine = inner

    def run_in_parts(self, frames: NDArray[np.uint8]) -> tuple[dict[str, Floats], dict[str, float]]:
        """As that of the engine; `search` is the time of a search here."""
        outputs, seconds = self._engine.run_in_parts(frames)
        if self._bank is None:
            return outputs, seconds
        begin = time.perf_counter()
        outputs = outputs | self._bank.outputs(outputs["embedding"], outputs["patches"])
        return outputs, seconds | {"search": time.perf_counter() - begin}


class GroupSearch:
    """The rows float32 [M, D] of a group, ready to be searched by a rule."""

    def __init__(self, rows: Floats, rule: BankRule) -> None:
        self._rows, self._rule = rows, rule
        self._cells = PatchSearch(rows) if rule.neighbours == 1 else None

    def __call__(self, patches: Floats) -> Floats:
        """Distances float32 [P] of the patches [P, D] of one image. The largest is exact, others are upper bounds of it."""
        if self._cells is None:
            return np.asarray(self._rule.nearest(patches, self._rows).mean(axis=1))
        found = self._cells(patches)
        farthest = int(np.where(found.exact, found.distances, -1).argmax())
        factor = self._rule.factor(patches[farthest], self._rows)
        return np.asarray(self._rule.measured(found.distances) * factor, np.float32)


class Bank:
    """A recipe's arrays of the head `patchcore`, ready to score images: the head's formulas, or another rule's."""

    def __init__(self, arrays: Arrays, spec: GraphSpec) -> None:
        dim = arrays["patch_mean"].shape[0]
        # Rows side by side, as recipes store them: then this is no copy.
        bank = np.asfortranarray(arrays["bank"], np.float32)
        self._rule = BankRule.of(arrays)
        self._searches = [GroupSearch(rows_of(bank, dim, group), self._rule) for group in range(len(bank) - dim - 1)]
        self.description = f"{bank.shape[1]} rows searched {'in cells' if self._rule.neighbours == 1 else 'one by one'}"
        mean, projection, bias = (np.asarray(arrays[f"group_{name}"]) for name in ("mean", "projection", "bias"))
        self._groups = Groups(mean, projection, bias, np.zeros(0, np.intp))
        self._offset, self._scale = arrays["score_offset"], arrays["score_scale"]
        self._whitening = Whitening(np.asarray(arrays["patch_mean"]), np.asarray(arrays["patch_projection"]))
        self._is_identity = bool(np.array_equal(arrays["patch_projection"], np.eye(dim)))
        _, height, width = _shape(spec, "anomaly_map")
        self._inspected = arrays.get("inspected")
        self._grid = grid_of(spec) or (1, 1)
        self._tall, self._wide = axis_filter(self._grid[0], height), axis_filter(self._grid[1], width)

    def outputs(self, embeddings: Floats, patches: Floats) -> dict[str, Floats]:
        """`score` [N] and `anomaly_map` [N, height, width] of images by their embeddings [N, E] and patches [N, P, D]."""
        found = [self.score(*image) for image in zip(embeddings, patches, strict=True)]
        scores, maps = zip(*found, strict=True)
        return {"score": np.array(scores, np.float32), "anomaly_map": np.stack(maps)}

    def score(self, embedding: Floats, patches: Floats) -> tuple[float, Floats]:
        """Score and map [height, width] of one image's embedding [E] and patches [P, D]; nan for what is no number."""
        if not (np.isfinite(embedding).all() and np.isfinite(patches).all()):
            return float("nan"), np.full((len(self._tall), len(self._wide)), np.nan, np.float32)
        group = int(self._groups.assign(embedding[None])[0])
        seen = patches if self._inspected is None else patches[self._inspected]
        queries = seen - self._whitening.mean if self._is_identity else self._whitening(seen)
        distances = self._searches[group](self._rule.placed(queries))
        scores = (distances - self._offset[group]) * self._scale[group]
        if self._inspected is not None:
            scores, searched = np.full(len(patches), scores.min(), np.float32), scores
            scores[self._inspected] = searched
        return float(scores.max()), self._tall @ scores.reshape(self._grid) @ self._wide.T


def is_searched_here(arrays: Arrays, spec: GraphSpec) -> bool:
    """Whether a CPU searches the bank beside the graph: by a rule that is not the graph's, or because it is large."""
    return not BankRule.of(arrays).in_graph or is_large(arrays, spec)


def is_large(arrays: Arrays, spec: GraphSpec) -> bool:
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


def grid_of(spec: GraphSpec) -> tuple[int, int] | None:
    """Rows and columns of the patches, which are square; None when the graph's sizes do not say."""
    (_, height, width), (_, positions, _) = _shape(spec, "anomaly_map"), _shape(spec, "patches")
    rows = round((positions * height / width) ** 0.5)
    columns = positions // max(rows, 1)
    return (rows, columns) if rows * columns == positions and rows * width == columns * height else None


def _shape(spec: GraphSpec, name: str) -> tuple[Any, ...]:
    return next(output.shape for output in spec.outputs if output.name == name)
