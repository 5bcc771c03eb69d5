"""What of a picture a model sees: the whole of it at the model's size, or tiles of that size over a larger picture.

Of tiles the picture is resized once, to a mosaic of `columns` x `rows` tiles of which neighbours share a band, and cut.
Every tile goes through the graph as a picture of its own; together they are one picture with more patches: its score is
the highest of the tiles', its embedding their mean. The map is drawn anew from the patches' scores (of a place that two
tiles see, the higher), as the graph would draw it for a picture of that many patches, so no seam can be seen in it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import ConfigError, InputError
from orinspect_edge_runtime.manifest import Manifest
from orinspect_edge_runtime.patch_scores import PatchScores
from orinspect_edge_runtime.preprocess import Pixels, PreprocessSpec, fit_to_model

Floats = NDArray[np.float32]
Outputs = dict[str, Floats]
Grid = tuple[int, int]
MOST_OVERLAP = 0.5


@dataclass(frozen=True)
class Tiles:
    """columns x rows tiles; neighbours share `overlap` of a tile, 0 to MOST_OVERLAP, rounded up to whole patches."""

    columns: int
    rows: int
    overlap: float = 0.25

    def __post_init__(self) -> None:
        if min(self.columns, self.rows) < 1 or max(self.columns, self.rows) < 2:
            raise InputError(f"--tiles {self}: columns x rows, at least two tiles, for example 3x2")
        if not 0 <= self.overlap <= MOST_OVERLAP:
            raise InputError(f"--tile-overlap {self.overlap}: a share of a tile from 0 to {MOST_OVERLAP}")

    def __str__(self) -> str:
        return f"{self.columns}x{self.rows}"


def parse_tiles(text: str, overlap: float) -> Tiles | None:
    """Tiles out of `3x2`, columns x rows; None for an empty text. Raises InputError for anything else."""
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,3})x(\d{1,3})", text)
    if found is None:
        raise InputError(f"--tiles {text}: columns x rows, for example 3x2")
    return Tiles(int(found[1]), int(found[2]), overlap)


class View(Protocol):
    """How a picture enters a graph. spec: the size of what it sees of the whole; grid: patches of that, rows x columns.

    cells: int [P], the place in that grid of each patch of the outputs, row by row; patch_of: int [cells], the reverse.
    """

    spec: PreprocessSpec
    grid: Grid
    cells: NDArray[np.intp]
    patch_of: NDArray[np.intp]

    def run(self, run: Callable[[Pixels], Outputs], pixels: Pixels) -> Outputs:
        """The outputs of one picture [h, w, 3] of any size; `run` takes frames [1, height, width, 3] of the model's."""


def view_of(tiles: Tiles | None, manifest: Manifest) -> View:
    """The view of a bundle's model. Raises InputError for tiles that do not go with it."""
    spec, grid = manifest.preprocess, manifest.encoder.grid
    return Whole(spec, grid) if tiles is None else Mosaic(tiles, spec, grid)


class Whole:
    """The picture at the model's size."""

    def __init__(self, spec: PreprocessSpec, grid: Grid) -> None:
        self.spec, self.grid = spec, grid
        self.cells = self.patch_of = np.arange(grid[0] * grid[1])

    def run(self, run: Callable[[Pixels], Outputs], pixels: Pixels) -> Outputs:
        """The graph's outputs."""
        return run(fit_to_model(pixels, self.spec)[None])


class Mosaic:
    """Tiles of the model's size over the picture."""

    def __init__(self, tiles: Tiles, spec: PreprocessSpec, grid: Grid) -> None:
        size = (spec.height, spec.width)
        if size[0] % grid[0] or size[1] % grid[1]:
            raise InputError(f"--tiles: {size[1]}x{size[0]} pixels are no multiple of {grid[1]}x{grid[0]} patches")
        shared = [math.ceil(tiles.overlap * side - 1e-9) for side in grid]
        counts = (tiles.rows, tiles.columns)
        self.grid = _whole(counts[0], grid[0], shared[0]), _whole(counts[1], grid[1], shared[1])
        self._tile, self._cell = size, (size[0] // grid[0], size[1] // grid[1])
        self.spec = _of_size(spec, self.grid[0] * self._cell[0], self.grid[1] * self._cell[1], tiles)
        self._corners = [
            (row * (grid[0] - shared[0]), column * (grid[1] - shared[1]))
            for row in range(counts[0])
            for column in range(counts[1])
        ]
        numbers = np.arange(self.grid[0] * self.grid[1]).reshape(self.grid)
        self.cells = np.concatenate([numbers[y : y + grid[0], x : x + grid[1]].ravel() for y, x in self._corners])
        self.patch_of = self._most_inside(grid)
        self._in_tile, self._in_whole = (
            PatchScores(grid, size),
            PatchScores(self.grid, (self.spec.height, self.spec.width)),
        )

    def _most_inside(self, grid: Grid) -> NDArray[np.intp]:
        """Of the patches at each cell the one farthest from its tile's rim."""
        y, x = np.indices(grid)
        inside = np.minimum(np.minimum(y, grid[0] - 1 - y), np.minimum(x, grid[1] - 1 - x)).ravel()
        order = np.argsort(np.tile(inside, len(self._corners)), kind="stable")
        patch_of = np.zeros(self.grid[0] * self.grid[1], np.intp)
        patch_of[self.cells[order]] = order
        return patch_of

    def run(self, run: Callable[[Pixels], Outputs], pixels: Pixels) -> Outputs:
        """The outputs of the tiles as those of one picture: patches [1, tiles x P, D], map [1, height, width] of `spec`."""
        whole = fit_to_model(pixels, self.spec)
        return self.joined([run(tile[None]) for tile in self.cut(whole)])

    def cut(self, whole: Pixels) -> list[Pixels]:
        """The tiles of a picture of the mosaic's size, row by row."""
        (height, width), (tall, wide) = self._tile, self._cell
        return [
            np.ascontiguousarray(whole[y * tall : y * tall + height, x * wide : x * wide + width])
            for y, x in self._corners
        ]

    def joined(self, tiles: list[Outputs]) -> Outputs:
        """Outputs of the whole out of those of each tile."""
        return {
            "embedding": np.mean([tile["embedding"][:1] for tile in tiles], axis=0, dtype=np.float32),
            "patches": np.concatenate([tile["patches"][:1] for tile in tiles], axis=1),
            "score": np.max([tile["score"][:1] for tile in tiles], axis=0),
            "anomaly_map": self._map(tiles)[None],
        }

    def _map(self, tiles: list[Outputs]) -> Floats:
        if not all(np.isfinite(tile["anomaly_map"]).all() for tile in tiles):
            return np.full((self.spec.height, self.spec.width), np.nan, np.float32)
        parts = [self._in_tile.of(tile["anomaly_map"][0], float(tile["score"][0])) for tile in tiles]
        scores = np.full(len(self.patch_of), -np.inf, np.float32)
        np.maximum.at(scores, self.cells, np.concatenate([part.ravel() for part in parts]))
        return self._in_whole.drawn(scores.reshape(self.grid))


def _whole(count: int, side: int, shared: int) -> int:
    """Patches along a side of the mosaic."""
    return count * side - (count - 1) * shared


def _of_size(spec: PreprocessSpec, height: int, width: int, tiles: Tiles) -> PreprocessSpec:
    try:
        return replace(spec, height=height, width=width)
    except ConfigError as error:
        raise InputError(
            f"--tiles {tiles}: the whole picture would be {width}x{height} pixels; 4096 a side at most"
        ) from error
