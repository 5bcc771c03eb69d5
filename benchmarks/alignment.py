"""What bringing parts to one place is worth: cells that lie shifted and turned on a belt, taken as they come and aligned.

    python benchmarks/alignment.py            writes benchmarks/results/alignment.json
    python benchmarks/alignment.py --quick    a minute, prints only

ELPV solar cells (300x300) on a dark belt of 416x416 pixels with sensor noise: 400 good cells to fit on, 350 good and 350
defective others to test. `straight`: all in the middle, what a perfect fixture would give. `moved`: shifted by up to 6 % of
the picture and turned by up to 5 degrees, at random; `anyhow`: turned by any angle. `cut`: moved cells of which the picture
shows the inner 256 pixels alone, so what comes in at the rim is made up. Each as it comes, and with `fit --align`. Encoder:
EfficientNet-Lite0 with ImageNet weights, 192 pixels, fp32. Image AUROC with its 95 % bootstrap interval; `missed` is how far
the turn that was found is off, degrees (cells look nearly the same after half a turn, so turns are compared modulo 90).
Times are processor time of one core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from revision import revision
from rich.console import Console
from rich.table import Table
from scoring_data import Encoder

from orinspect_edge_runtime import durable, metrics
from orinspect_edge_runtime.aligned_frames import in_place, with_placing
from orinspect_edge_runtime.alignment import Aligner
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.features import Features, score_features
from orinspect_edge_runtime.fit import fit_features
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.preprocess import Frame, Pixels
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_train.solar_cells import Cell, read_cells, split_cells

RESULT = Path(__file__).parent / "results/alignment.json"
SIDE, BELT, NOISE = 416, 12, 4.0
SCORERS_SHOWN = ("padim", "patchcore", "mahalanobis")
Row = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """How parts lie: largest turn in degrees, largest shift as a share of the picture, what `--align` is given, and how
    many pixels of the belt's middle the picture shows."""

    degrees: float
    shift: float
    align: float
    side: int = SIDE


LINES = {
    "straight": Line(0, 0, 0),
    "moved": Line(5, 0.06, 10),
    "anyhow": Line(180, 0.06, 180),
    "cut": Line(4, 0.03, 8, 256),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    known, asked = (80, 40) if chosen.quick else (400, 350)
    split = split_cells(read_cells())
    cells = [*split.fit[:known], *split.good[:asked], *split.defective[:asked]]
    conditions = measure_conditions(0) | {"commit": revision()}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="orinspect-alignment-") as folder:
        encoder = Encoder(Path(folder))
        for name in ("straight", "moved") if chosen.quick else LINES:
            rows += measure(name, LINES[name], cells, known, encoder)
            show(rows)
    if not chosen.quick:
        result = {"protocol": __doc__, "conditions": conditions, "rows": rows}
        durable.write_bytes(RESULT, json.dumps(result, indent=1).encode() + b"\n")


def measure(name: str, line: Line, cells: list[Cell], known: int, encoder: Encoder) -> list[Row]:
    """Rows of a line: as it comes, and aligned, which the straight one has no need of."""
    rng = np.random.default_rng(0)
    lie = rng.uniform(-1, 1, (len(cells), 3)) * [line.degrees, line.shift, line.shift]
    frames = [
        Frame(on_the_belt(cell, *pose, line.side, rng), str(n))
        for n, (cell, pose) in enumerate(zip(cells, lie, strict=True))
    ]
    defective = np.array([cell.probability > 0 for cell in cells[known:]])
    row = {"line": name, "aligned": False, "auroc": aurocs(encoder, [f.pixels for f in frames], known, defective)}
    if name == "straight":
        return [row]
    (_, aligner), fit_seconds = timed(lambda: with_placing(frames[:known], line.align, encoder.spec))
    assert aligner is not None
    placed, seconds = timed(lambda: [in_place(frame, aligner, encoder.spec)[0] for frame in frames])
    figures = {
        "learn_s": fit_seconds,
        "ms_a_picture": 1e3 * seconds / len(frames),
        "missed": missed(aligner, frames, lie),
    }
    return [row, {"line": name, "aligned": True, "auroc": aurocs(encoder, placed, known, defective)} | figures]


def on_the_belt(cell: Cell, degrees: float, x: float, y: float, side: int, rng: np.random.Generator) -> Pixels:
    """The cell on a dark belt, turned clockwise and shifted, with sensor noise: uint8 [side, side, 3], the middle."""
    with Image.open(cell.path) as opened:
        picture = Image.new("L", (SIDE, SIDE), BELT)
        picture.paste(opened.convert("L"), ((SIDE - opened.width) // 2, (SIDE - opened.height) // 2))
    turned = picture.rotate(
        -degrees,
        Image.Resampling.BICUBIC,
        translate=(x * SIDE, y * SIDE),
        fillcolor=BELT,  # type: ignore[arg-type]
    )
    noisy = np.asarray(turned, np.float32) + rng.normal(0, NOISE, (SIDE, SIDE)).astype(np.float32)
    rim = (SIDE - side) // 2
    shown = noisy[rim : rim + side, rim : rim + side]
    return np.repeat(np.clip(shown, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def missed(aligner: Aligner, frames: list[Frame], lie: NDArray[np.float64]) -> Row:
    """10, 50, 90 and 99 % of how far turns are off, degrees, after what they have in common."""
    off = np.array([aligner.pose(frame.pixels).degrees for frame in frames]) - lie[:, 0]
    off = (off - np.median((off + 45) % 90 - 45) + 45) % 90 - 45
    return {str(share): float(np.percentile(np.abs(off), share)) for share in (10, 50, 90, 99)}


def aurocs(encoder: Encoder, pictures: list[Pixels], known: int, defective: NDArray[np.bool_]) -> Row:
    features = encoder.features(pictures)
    good, tested = (Features(features.embedding[p], features.patches[p]) for p in (slice(known), slice(known, None)))
    found = {}
    for scorer in SCORERS_SHOWN:
        fitted = fit_features(good, FitOptions(scorer=scorer))
        scores = score_features(SCORERS[scorer], fitted.arrays, tested)[0].astype(np.float64)
        (interval,) = metrics.bootstrap_intervals([metrics.auroc], defective, scores)
        found[scorer] = {"auroc": metrics.auroc(defective, scores), "interval": interval}
    return found


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work gives, and its processor seconds."""
    began = time.process_time()
    return work(), time.process_time() - began


def show(rows: list[Row]) -> None:
    table = Table("line", "aligned", *SCORERS_SHOWN, "ms a picture", "turn off by", title="Image AUROC")
    for row in rows:
        cells = [
            "{auroc:.3f} ({interval[0]:.3f} to {interval[1]:.3f})".format(**row["auroc"][s]) for s in SCORERS_SHOWN
        ]
        extra = (f"{row['ms_a_picture']:.1f}", f"{row['missed']['50']:.2f}") if row["aligned"] else ("", "")
        table.add_row(row["line"], "yes" if row["aligned"] else "", *cells, *extra)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
