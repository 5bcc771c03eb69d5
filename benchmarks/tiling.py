"""Tiles over large pictures: is a small defect found that the whole picture hides, and also where it lies on a seam?

    python benchmarks/tiling.py BUNDLE            writes benchmarks/results/tiling.json
    python benchmarks/tiling.py BUNDLE --quick    fewer pictures of one texture; prints only

Rendered textures, of each kind good pictures to fit on and others to test, at the pixels that 2x2 tiles see. In every test
picture the same small hole is drawn at three places: in the middle of a tile, across a seam, and where four tiles meet; so
scores compare in pairs. `whole` is a recipe without tiles for the same pictures. Times are CPU seconds of the two, taken
in turn. Says nothing about a Jetson.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import textures
from numpy.typing import NDArray
from revision import revision

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.fit import fit_recipe
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.metrics import auroc
from orinspect_edge_runtime.preprocess import Frame
from orinspect_edge_runtime.tiling import Tiles, view_of

RESULT = Path(__file__).parent / "results/tiling.json"
OVERLAPS = (0.0, 0.25, 0.5)
RADIUS, DARK = 5, 20
Pixels = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    kinds, good, tested = (("granite",), 10, 6) if chosen.quick else (tuple(textures.KINDS), 20, 20)
    conditions = measure_conditions(1) | {"commit": revision(), "good": good, "tested": tested, "radius_px": RADIUS}
    rows = []
    with tempfile.TemporaryDirectory(prefix="orinspect-tiling-") as folder:
        shutil.copytree(chosen.bundle, Path(folder) / "bundle")
        for kind in kinds:
            for overlap in OVERLAPS:
                rows.append(
                    {"kind": kind, "overlap": overlap} | measured(Path(folder) / "bundle", kind, overlap, good, tested)
                )
                print(json.dumps(rows[-1]))
    result = {"protocol": __doc__, "conditions": conditions, "rows": rows}
    if not chosen.quick:
        durable.write_bytes(RESULT, json.dumps(result, indent=2).encode() + b"\n")


def measured(folder: Path, kind: str, overlap: float, good: int, tested: int) -> dict[str, Any]:
    """Figures of one texture at one overlap."""
    bundle, tiles = Bundle.open(folder), Tiles(2, 2, overlap)
    side = view_of(tiles, bundle.manifest).spec.height
    drawn = textures.render(kind, side, good + tested, 2)
    frames = [Frame(pixels, str(number)) for number, pixels in enumerate(drawn.good)]
    for name, options in (
        ("tiled", FitOptions(tiles=str(tiles), tile_overlap=overlap)),
        ("whole", FitOptions(groups=1)),
    ):
        bundle = bundle.add_recipe(fit_recipe(bundle, frames[:good], name, options))
    places = _places(side, bundle.manifest.preprocess.height)
    scores: dict[str, dict[str, list[float]]] = {
        name: {"good": []} | {p: [] for p in places} for name in ("tiled", "whole")
    }
    spent: dict[str, list[float]] = {name: [] for name in scores}
    with Detector.load(bundle, "tiled", recipes=["whole"], threads=1) as detector:
        for frame in frames[good:]:
            for name, of in scores.items():
                detector.use(name)
                begin = time.process_time()
                of["good"].append(detector(frame).score)
                spent[name].append(time.process_time() - begin)
                for place, middle in places.items():
                    of[place].append(detector(Frame(_pierced(frame.pixels, middle), place)).score)
    return {
        "side_px": side,
        "auroc": {name: {place: _auroc(of["good"], of[place]) for place in places} for name, of in scores.items()},
        "score_to_that_inside": {
            place: _ratio(scores["tiled"][place], scores["tiled"]["inside"]) for place in places if place != "inside"
        },
        "cpu_s_tiled_to_whole": median(a / b for a, b in zip(spent["tiled"], spent["whole"], strict=True)),
    }


def _places(side: int, tile: int) -> dict[str, tuple[int, int]]:
    """Row and column of the hole: the middle of the first tile, of the band between two, and of the four."""
    return {"inside": (tile // 2, tile // 2), "seam": (tile // 2, side // 2), "corner": (side // 2, side // 2)}


def _pierced(pixels: Pixels, middle: tuple[int, int]) -> Pixels:
    rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    mask = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < RADIUS**2
    return np.where(mask[:, :, None], np.uint8(DARK), pixels)


def _auroc(good: list[float], bad: list[float]) -> float:
    return auroc(np.repeat([False, True], [len(good), len(bad)]), np.array(good + bad))


def _ratio(scores: list[float], inside: list[float]) -> dict[str, float]:
    """Quartiles of the ratio of paired scores, which lie far above 0, that of a usual good picture."""
    ratios = np.array(scores) / np.array(inside)
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return {"low": float(low), "median": float(middle), "high": float(high)}


if __name__ == "__main__":
    main()
