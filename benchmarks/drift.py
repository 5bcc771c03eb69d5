"""How soon the drift monitor sees what goes wrong on a line, and how often it is wrong itself.

    python benchmarks/drift.py            writes benchmarks/results/drift.json
    python benchmarks/drift.py --quick    a minute, prints only

Good ELPV solar cells (300x300), in random order as a line with mixed modules would show them. Each of five draws fits
scorer knn and the drift reference on 300 of the 1,508 good cells; the images shown are others. A repetition shows the
monitor 50 unshifted images and then up to 200 shifted ones; the delay is the number of the shifted image that sets off
the alarm. Unshifted windows are 50 images long, after 50 others, each window with a monitor of its own. `new kind` fits
on monocrystalline cells and shows polycrystalline ones. Beside the delay stands the harm: the share of shifted good
images above a threshold that promises 5 %. `in the order of the data set` fits and shows the cells module by module.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from revision import revision
from rich.console import Console
from rich.table import Table
from scoring_data import Encoder
from shifts import SHIFTS, Pixels, Shift

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.appearance import appearance
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.drift import DriftMonitor
from orinspect_edge_runtime.drift_reference import drift_arrays
from orinspect_edge_runtime.features import Features, score_features
from orinspect_edge_runtime.fit import fit_features
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.preprocess import PreprocessSpec, fit_to_model, read_frame
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_train.solar_cells import read_cells

RESULT = Path(__file__).parent / "results/drift.json"
SCORER, RATE, REFERENCE, DRAWS = "knn", 0.05, 300, 5
BEFORE, AFTER, WINDOW = 50, 200, 50


class Images:
    """What the monitor is shown: embedding float32 [N, E] and appearance float32 [N, 5] of each image."""

    def __init__(self, encoder: Encoder, name: str, paths: list[Path], shift: Shift | None = None) -> None:
        kept = encoder.kept(name, lambda: self._encoded(encoder, paths, shift))
        self.embedding, self.looks = kept["embedding"], kept["appearance"]

    def _encoded(self, encoder: Encoder, paths: list[Path], shift: Shift | None) -> dict[str, NDArray[Any]]:
        rng, looks = np.random.default_rng(0), []

        def pictures() -> Iterator[Pixels]:
            for path in paths:
                pixels: Pixels = read_frame(path, encoder.spec).pixels
                pixels = pixels if shift is None else np.ascontiguousarray(shift(pixels, rng))
                looks.append(appearance(fit_to_model(pixels, encoder.spec)))
                yield pixels

        return {"embedding": encoder.features(pictures()).embedding, "appearance": np.stack(looks)}


class Line:
    """A recipe fitted on some images, and monitors of it."""

    def __init__(self, images: Images, fit: NDArray[np.intp], seed: int) -> None:
        features = _without_patches(images.embedding[fit])
        self._fitted = fit_features(features, FitOptions(SCORER, false_alarm=RATE, seed=seed))
        fitted = self._fitted
        drift = drift_arrays(features.embedding, images.looks[fit], fitted.groups.labels, fitted.calibration, seed)
        self.recipe = Recipe(
            name="line",
            scorer=SCORER,
            precision="fp32",
            graph_sha256="",
            backend="",
            good_images=len(fit),
            group_sizes=(),
            threshold=fitted.threshold.value,
            false_alarm=RATE,
            false_alarm_note="",
            seed=seed,
            created_with="",
            arrays=fitted.arrays | drift,
            calibration_scores=np.sort(fitted.calibration),
        )

    def monitor(self) -> DriftMonitor:
        """A new monitor; the appearances it is shown are ready, so it makes no frames."""
        return DriftMonitor(self.recipe, PreprocessSpec())

    def scores(self, images: Images) -> NDArray[np.float64]:
        """Normalised scores [N]."""
        return score_features(SCORERS[SCORER], self.recipe.arrays, _without_patches(images.embedding))[0]

    def show(self, monitor: DriftMonitor, images: Images, scores: NDArray[np.float64], index: Any) -> int:
        """Show images until the alarm; the number of the one that sets it off, 0 for none."""
        for number, i in enumerate(index, 1):
            if monitor.update_with(float(scores[i]), images.embedding[i], images.looks[i]).alarm:
                return number
        return 0


def _without_patches(embedding: NDArray[np.float32]) -> Features:
    return Features(embedding, np.zeros((len(embedding), 1, 1), np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cache", type=Path, help="folder to keep features and appearances in")
    chosen = parser.parse_args()
    quick, size = chosen.quick, "-quick" if chosen.quick else ""
    conditions = measure_conditions(1) | {"commit": revision()}
    cells = [cell for cell in read_cells() if cell.probability == 0][:: 4 if quick else 1]
    kinds = np.array([cell.kind for cell in cells])
    with tempfile.TemporaryDirectory(prefix="orinspect-drift-") as folder:
        encoder = Encoder(Path(folder) / "encoder", chosen.cache)
        good = Images(encoder, f"good{size}", [cell.path for cell in cells])
        shown = np.sort(np.random.default_rng(5).choice(len(cells), 60 if quick else 300, replace=False))
        paths = [cells[i].path for i in shown]
        wanted = dict(list(SHIFTS.items())[1:6:2]) if quick else SHIFTS
        shifted = {
            name: Images(encoder, f"shift{number}{size}", paths, shift)
            for number, (name, shift) in enumerate(wanted.items())
        }
    rows = study(good, kinds, shown, shifted, 20 if quick else 200, 40 if quick else 2500)
    rows.append(in_order(good))
    show(rows)
    if not quick:
        result = {"protocol": __doc__, "conditions": conditions, "rows": rows}
        durable.write_bytes(RESULT, json.dumps(result, indent=1).encode() + b"\n")


def study(
    good: Images,
    kinds: NDArray[np.str_],
    shown: NDArray[np.intp],
    shifted: dict[str, Images],
    repetitions: int,
    windows: int,
) -> list[dict[str, Any]]:
    """Delays of every shift, and alarms on unshifted windows, over the draws."""
    delays: dict[str, list[int]] = {name: [] for name in [*shifted, "new kind of cell"]}
    harm: dict[str, list[float]] = {name: [] for name in delays}
    alarms = []
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        free = np.setdiff1d(np.arange(len(kinds)), shown)
        fit = rng.choice(free, min(REFERENCE, len(free) // 2), replace=False)
        line, rest = Line(good, fit, draw), np.setdiff1d(np.arange(len(kinds)), fit)
        scores = line.scores(good)
        for _ in range(windows // DRAWS):
            monitor, index = line.monitor(), rng.choice(rest, BEFORE + WINDOW, replace=False)
            early = line.show(monitor, good, scores, index[:BEFORE])
            alarms.append(not early and line.show(monitor, good, scores, index[BEFORE:]) > 0)
        for name, images in shifted.items():
            found = _delays(line, good, rest, images, np.arange(len(shown)), repetitions // DRAWS, rng)
            delays[name] += found
            harm[name].append(float((line.scores(images) > line.recipe.threshold).mean()))
        mono, poly = np.flatnonzero(kinds == "mono"), np.flatnonzero(kinds == "poly")
        fit = rng.choice(mono, min(REFERENCE, len(mono) // 2), replace=False)
        line, rest = Line(good, fit, draw), np.setdiff1d(mono, fit)
        delays["new kind of cell"] += _delays(line, good, rest, good, poly, repetitions // DRAWS, rng)
        harm["new kind of cell"].append(float((line.scores(good)[poly] > line.recipe.threshold).mean()))
    rows = [_row(name, delays[name], float(np.mean(harm[name]))) for name in delays]
    return [*rows, {"shift": "none", "windows": len(alarms), "alarmed": float(np.mean(alarms))}]


def _delays(
    line: Line,
    good: Images,
    before: NDArray[np.intp],
    images: Images,
    after: NDArray[np.intp],
    repetitions: int,
    rng: np.random.Generator,
) -> list[int]:
    """Number of the shifted image that set off the alarm, AFTER + 1 when none did, -1 when it was off before."""
    scores, shifted_scores, found = line.scores(good), line.scores(images), []
    for _ in range(repetitions):
        monitor = line.monitor()
        if line.show(monitor, good, scores, rng.choice(before, BEFORE, replace=False)):
            found.append(-1)
            continue
        shown = rng.choice(after, min(AFTER, len(after)), replace=False)
        found.append(line.show(monitor, images, shifted_scores, shown) or AFTER + 1)
    return found


def _row(name: str, delays: list[int], harm: float) -> dict[str, Any]:
    valid = np.array([d for d in delays if d > 0])
    return {
        "shift": name,
        "repetitions": len(valid),
        "alarmed_before": len(delays) - len(valid),
        "within_50": float((valid <= WINDOW).mean()),
        "delay_quantiles_10_50_90": np.quantile(valid, (0.1, 0.5, 0.9)).tolist(),
        "above_threshold": harm,
        "promised": RATE,
    }


def in_order(good: Images) -> dict[str, Any]:
    """Every second cell fitted, the others shown, both module by module: neighbours are alike, and the limit allows it."""
    fit = np.arange(0, len(good.looks), 2)
    line = Line(good, fit, 0)
    monitor = line.monitor()
    line.show(monitor, good, line.scores(good), np.arange(1, len(good.looks), 2))
    return {"shift": "none, in the order of the data set", "images": monitor.state.images, "alarm": monitor.state.alarm}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows."""
    table = Table("shift", "alarmed within 50", "delay 10/50/90 %", "above the 5 % threshold")
    for row in rows:
        if "within_50" in row:
            delay = "/".join(f"{d:.0f}" for d in row["delay_quantiles_10_50_90"])
            table.add_row(row["shift"], f"{row['within_50']:.1%}", delay, f"{row['above_threshold']:.1%}")
        else:
            table.add_row(row["shift"], ", ".join(f"{k} {v}" for k, v in row.items() if k != "shift"))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
