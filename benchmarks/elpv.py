"""AUROC on the ELPV solar cells: raw pixels, untrained, ImageNet and adapted encoders, and the full product.

    python benchmarks/elpv.py            three seeds, about 25 minutes on 2 cores; writes benchmarks/results/elpv.json
    python benchmarks/elpv.py --quick    one seed, 20 seconds of adaptation; prints only

Protocol (solar_cells.py): a recipe is fitted on a seeded 70 % of the good cells (probability 0); the rest of them are
tested against all cells with a defect probability of 2/3 or more. Labels are used for the AUROC and for nothing else.
Every encoder goes through the product's own path: pretrain, export, fp32 graph in onnxruntime, fit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from orinspect_edge_runtime import durable, metrics
from orinspect_edge_runtime.backends import open_backend
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.features import Features, extract, score_features
from orinspect_edge_runtime.fit import FitOptions, fit_features
from orinspect_edge_runtime.heads import neutral_inputs
from orinspect_edge_runtime.preprocess import PreprocessSpec, fit_to_model, read_frame
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_train.solar_cells import Cell, Split, read_cells, split_cells, write_dataset

RESULT = Path(__file__).parent / "results" / "elpv.json"
CONSOLE = Console(stderr=True)
RAW = PreprocessSpec(height=64, width=64)
KINDS = (None, "mono", "poly")
Row = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minutes", type=float, default=4.0, help="adaptation time a seed")
    chosen = parser.parse_args()
    seeds, minutes = ((0,), 0.33) if chosen.quick else ((0, 1, 2), chosen.minutes)
    conditions = measure_conditions(0) | {"commit": _commit(), "seeds": list(seeds), "adaptation_minutes": minutes}
    with tempfile.TemporaryDirectory(prefix="orinspect-elpv-") as folder:
        rows, records = study(Path(folder), seeds, minutes)
    show(rows)
    result = {"protocol": __doc__, "conditions": conditions, "auroc": rows, "adaptation": records}
    if not chosen.quick:
        durable.write_bytes(RESULT, json.dumps(result, indent=2).encode())


def study(folder: Path, seeds: Sequence[int], minutes: float) -> tuple[dict[str, Row], list[Any]]:
    """AUROC lists by method and kind of cell, one value a seed; and each run's own record of its adaptation."""
    cells = read_cells()
    used = [cell for cell in cells if cell.probability == 0 or cell.probability > 0.6]
    rows: dict[str, Row] = {}
    records = []
    raw = _raw_features(used)
    fixed = {
        name: _encoder_features(folder / name, used, folder, "--init", init, "--epochs", "0")
        for name, init in (("untrained", "scratch"), ("imagenet", "imagenet"))
    }
    for seed in seeds:
        split = split_cells(cells, seed)
        _add(rows, "raw 64 px pixels, kNN", raw, "knn", used, split, groups=1, seed=seed)
        data = folder / f"data-{seed}"
        write_dataset(split, data)
        run = folder / f"adapted-{seed}"
        adapted = _encoder_features(run, used, data / "train/good", "--minutes", str(minutes), "--seed", str(seed))
        records.append(json.loads((run / "run/encoder.json").read_bytes()))
        for name, features in {**fixed, "adapted": adapted}.items():
            for scorer in ("mahalanobis", "patchcore", "padim"):
                _add(rows, f"{name} encoder, {scorer}", features, scorer, used, split, groups=0, seed=seed)
    return rows, records


def _add(
    rows: dict[str, Row],
    name: str,
    features: Features,
    scorer: str,
    used: list[Cell],
    split: Split,
    groups: int,
    seed: int,
) -> None:
    """Fit on the split's good cells, score its test cells, append the AUROC of all, mono and poly."""
    place = {cell.path: index for index, cell in enumerate(used)}
    fit = [place[cell.path] for cell in split.fit]
    test = [*split.good, *split.defective]
    at = [place[cell.path] for cell in test]
    fitted = fit_features(_rows(features, fit), FitOptions(scorer=scorer, groups=groups, seed=seed))
    scores, _ = score_features(SCORERS[scorer], fitted.arrays, _rows(features, at))
    labels = np.array([cell.probability > 0 for cell in test])
    kinds = np.array([cell.kind for cell in test])
    row = rows.setdefault(name, {kind or "all": [] for kind in KINDS})
    for kind in KINDS:
        chosen = (kinds == kind) if kind else np.ones(len(test), bool)
        row[kind or "all"].append(metrics.auroc(labels[chosen], scores[chosen]))


def _rows(features: Features, index: list[int]) -> Features:
    return Features(features.embedding[index], features.patches[index])


def _raw_features(cells: list[Cell]) -> Features:
    """Pixels at 64x64 as the embedding, float32 [N, 4096] (the images are gray)."""
    pixels = [
        fit_to_model(read_frame(c.path, RAW).pixels, RAW)[:, :, 0].ravel() for c in track(cells, "raw", console=CONSOLE)
    ]
    embedding: NDArray[np.float32] = np.stack(pixels).astype(np.float32)
    return Features(embedding, np.zeros((len(cells), 1, 1), np.float32))


def _encoder_features(place: Path, cells: list[Cell], data: Path, *options: str) -> Features:
    """Pretrain with the options, export, and compute the features of all cells through the fp32 graph."""
    images = data if data.name == "good" else _all_good(place, cells)
    _orinspect("pretrain", str(images), "--out", str(place / "run"), *options)
    _orinspect("export", str(place / "run"), "--out", str(place / "bundle"), "--precision", "fp32")
    bundle = Bundle.open(place / "bundle")
    spec, preprocess = bundle.manifest.graph("fp32", "patchcore"), bundle.manifest.preprocess
    frames = (read_frame(c.path, preprocess) for c in track(cells, place.name, console=CONSOLE))
    with open_backend(bundle.read(spec.file), spec) as backend:
        backend.set_inputs(neutral_inputs("patchcore", bundle.manifest.encoder))
        return extract(backend, frames, preprocess)


def _all_good(place: Path, cells: list[Cell]) -> Path:
    """A folder of good cells for the runs that do not train on them."""
    folder = place / "images/good"
    folder.mkdir(parents=True)
    for cell in [c for c in cells if c.probability == 0][:100]:
        (folder / cell.file_name).symlink_to(cell.path)
    return folder


def _orinspect(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "orinspect_edge_runtime.cli", *arguments], check=True, stdout=sys.stderr)


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def show(rows: dict[str, Row]) -> None:
    """Print mean and range over the seeds, and the paired gain of adaptation under each scorer."""
    table = Table("method", *(kind or "all" for kind in KINDS), title="ELPV, image AUROC, mean (least to most)")
    for name, row in rows.items():
        table.add_row(name, *(f"{np.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in row.values()))
    Console().print(table)
    for scorer in ("mahalanobis", "patchcore", "padim"):
        before, after = (rows[f"{e} encoder, {scorer}"]["all"] for e in ("imagenet", "adapted"))
        gains = ", ".join(f"{100 * (a - b):+.2f}" for a, b in zip(after, before, strict=True))
        print(f"{scorer}: adapted minus ImageNet, paired by seed, points: {gains}")


if __name__ == "__main__":
    main()
