"""AUROC on the ELPV solar cells: raw pixels, untrained, ImageNet and adapted encoders, and the full product.

    python benchmarks/elpv.py            three seeds, about 20 minutes on 2 cores; writes benchmarks/results/elpv.json
    python benchmarks/elpv.py --quick    one seed, raw pixels and the ImageNet encoder as it is; prints only

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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from revision import revision
from rich.console import Console
from rich.progress import track
from rich.table import Table

from orinspect_edge_runtime import durable, metrics
from orinspect_edge_runtime.backends import open_backend
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.features import Features, extract, score_features
from orinspect_edge_runtime.fit import fit_features
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.heads import neutral_inputs
from orinspect_edge_runtime.preprocess import PreprocessSpec, fit_to_model, read_frame
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_edge_runtime.tiling import view_of
from orinspect_train.run_folder import DROPPED
from orinspect_train.solar_cells import Cell, Split, read_cells, split_cells, write_dataset

RESULT = Path(__file__).parent / "results" / "elpv.json"
CONSOLE = Console(stderr=True)
RAW = PreprocessSpec(height=64, width=64)
SCORERS_SHOWN = ("mahalanobis", "patchcore", "padim", "padim_mahalanobis")
KINDS = (None, "mono", "poly")
Row = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--epochs", type=int, default=4, help="of the adaptation")
    chosen = parser.parse_args()
    seeds = (0,) if chosen.quick else (0, 1, 2)
    conditions = measure_conditions(0) | {
        "commit": revision(),
        "seeds": list(seeds),
        "adaptation_epochs": chosen.epochs,
    }
    with tempfile.TemporaryDirectory(prefix="orinspect-elpv-") as folder:
        if chosen.quick:
            show(as_they_are(Path(folder), seeds, {"imagenet": "imagenet"}, ("mahalanobis", "padim")))
            return
        rows = as_they_are(Path(folder), seeds, {"untrained": "scratch", "imagenet": "imagenet"}, SCORERS_SHOWN)
        adapted_rows, records = adapted(Path(folder), seeds, chosen.epochs)
    rows |= adapted_rows
    show(rows)
    show_gains(rows)
    result = {"protocol": __doc__, "conditions": conditions, "auroc": rows, "adaptation": records}
    durable.write_bytes(RESULT, json.dumps(result, indent=2).encode() + b"\n")


def as_they_are(
    folder: Path, seeds: Sequence[int], encoders: Mapping[str, str], scorers: Sequence[str]
) -> dict[str, Row]:
    """AUROC lists by method and kind of cell, one value a seed, of raw pixels and encoders (name: init) unadapted."""
    cells, rows = read_cells(), dict[str, Row]()
    used = _used(cells)
    raw = _raw_features(used)
    features = {
        name: _encoder_features(folder / name, used, folder, "--init", init, "--epochs", "0")
        for name, init in encoders.items()
    }
    for seed in seeds:
        split = split_cells(cells, seed)
        _add(rows, "raw 64 px pixels, kNN", raw, "knn", used, split, groups=1, seed=seed)
        for name, found in features.items():
            for scorer in scorers:
                _add(rows, f"{name} encoder, {scorer}", found, scorer, used, split, groups=0, seed=seed)
    return rows


def adapted(folder: Path, seeds: Sequence[int], epochs: int) -> tuple[dict[str, Row], list[Any]]:
    """The same of the ImageNet encoder adapted to each seed's own good cells, and each run's record of it.

    The adapted weights are what is scored, whether the run's own check kept them or not; the record says which.
    """
    cells, rows, records = read_cells(), dict[str, Row](), []
    used = _used(cells)
    for seed in seeds:
        split, data, place = split_cells(cells, seed), folder / f"data-{seed}", folder / f"adapted-{seed}"
        write_dataset(split, data)
        options = ("--epochs", str(epochs), "--seed", str(seed))
        found = _encoder_features(place, used, data / "train/good", *options)
        records.append(json.loads((place / "run/encoder.json").read_bytes()))
        dropped = place / "run" / DROPPED
        if dropped.exists():
            again = ("--epochs", "0", "--init", str(dropped))
            found = _encoder_features(folder / f"dropped-{seed}", used, data / "train/good", *again)
        for scorer in SCORERS_SHOWN:
            _add(rows, f"adapted encoder, {scorer}", found, scorer, used, split, groups=0, seed=seed)
    return rows, records


def _used(cells: list[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.probability == 0 or cell.probability > 0.6]


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
    calibration = ("--calibration", str(images))
    _orinspect("export", str(place / "run"), "--out", str(place / "bundle"), "--precision", "fp32", *calibration)
    bundle = Bundle.open(place / "bundle")
    spec, preprocess = bundle.manifest.graph("fp32", "patchcore"), bundle.manifest.preprocess
    frames = (read_frame(c.path, preprocess) for c in track(cells, place.name, console=CONSOLE))
    with open_backend(bundle.read(spec.file), spec, throughput=True) as backend:
        backend.set_inputs(neutral_inputs("patchcore", bundle.manifest.encoder))
        return extract(backend, frames, view_of(None, bundle.manifest))


def _all_good(place: Path, cells: list[Cell]) -> Path:
    """A folder of good cells for the runs that do not train on them."""
    folder = place / "images/good"
    folder.mkdir(parents=True)
    for cell in [c for c in cells if c.probability == 0][:100]:
        (folder / cell.file_name).symlink_to(cell.path)
    return folder


def _orinspect(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "orinspect_edge_runtime.cli", *arguments], check=True, stdout=sys.stderr)


def show(rows: dict[str, Row]) -> None:
    """Print mean and range over the seeds."""
    table = Table("method", *(kind or "all" for kind in KINDS), title="ELPV, image AUROC, mean (least to most)")
    for name, row in rows.items():
        table.add_row(name, *(f"{np.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in row.values()))
    Console(width=110).print(table)


def show_gains(rows: dict[str, Row]) -> None:
    """Print what adaptation gained under each scorer, paired by seed."""
    for scorer in SCORERS_SHOWN:
        before, after = (rows[f"{e} encoder, {scorer}"]["all"] for e in ("imagenet", "adapted"))
        gains = ", ".join(f"{100 * (a - b):+.2f}" for a, b in zip(after, before, strict=True))
        print(f"{scorer}: adapted minus ImageNet, paired by seed, points: {gains}")


if __name__ == "__main__":
    main()
