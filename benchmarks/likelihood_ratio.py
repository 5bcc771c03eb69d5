"""What `fit --likelihood-ratio` is worth: padim and padim_mahalanobis with and without it, by the number of good images.

    python benchmarks/likelihood_ratio.py            one core, ten minutes; writes benchmarks/results/likelihood_ratio.json
    python benchmarks/likelihood_ratio.py --quick    about a minute, prints only

Encoder: EfficientNet-Lite0 with ImageNet weights, not adapted, 192x192 pixels, fp32 graph in onnxruntime. What drawn defects
change is measured as an export does, on up to 64 of the good images fitted on. One value a seed, which draws the images.

elpv      solar cells, one group: 10 to 400 good ones, 800 drawn from the others tested; image AUROC
fashion   Fashion-MNIST, a class against nine, mean of the classes: 80 good ones; image AUROC
textures  rendered, with defects and pixel truth: 10 and 40 good, 80 tested; image AUROC, AUPRO up to 0.3 of maps as the
          graph draws them
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import textures
import torch
from fashion import read_gray
from numpy.typing import NDArray
from revision import revision
from rich.console import Console
from scoring_data import Encoder, fashion, rows, solar_cells

from orinspect_edge_runtime import durable, metrics
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.features import Features
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.patch_scores import PatchScores
from orinspect_edge_runtime.preprocess import fit_to_model, read_frame
from orinspect_train.defect_changes import defect_changes
from orinspect_train.solar_cells import read_cells

RESULT = Path(__file__).parent / "results/likelihood_ratio.json"
CONSOLE = Console(stderr=True)
OPTIONS: dict[str, dict[str, Any]] = {
    "padim": {"scorer": "padim"},
    "padim, ratio": {"scorer": "padim", "likelihood_ratio": True},
    "padim of rank 16": {"scorer": "padim", "rank": 16},
    "padim of rank 16, ratio": {"scorer": "padim", "rank": 16, "likelihood_ratio": True},
    "padim_mahalanobis": {"scorer": "padim_mahalanobis"},
    "padim_mahalanobis, ratio": {"scorer": "padim_mahalanobis", "likelihood_ratio": True},
}
DRAWN_ON = 64
Row = dict[str, Any]
Pixels = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    result: dict[str, Any] = {"protocol": __doc__, "conditions": measure_conditions(1) | {"commit": revision()}}
    seeds = range(1 if quick else 3)
    with tempfile.TemporaryDirectory(prefix="orinspect-ratio-") as folder:
        encoder = Encoder(Path(folder))
        for section, study in SECTIONS.items():
            result[section] = study(encoder, seeds, quick)
            for row in result[section]:
                CONSOLE.print_json(json.dumps({"section": section} | row), indent=None)
    if not quick:
        durable.write_bytes(RESULT, json.dumps(result, indent=1).encode() + b"\n")


def elpv(encoder: Encoder, seeds: range, quick: bool) -> list[Row]:
    """A row for each number of good cells."""
    cells = [cell for cell in read_cells() if cell.probability == 0 or cell.probability > 0.6][:: 8 if quick else 1]
    known = solar_cells(encoder, cells, "cells")
    pixels = np.stack([fit_to_model(read_frame(cell.path, encoder.spec).pixels, encoder.spec) for cell in cells])
    counts, found = (20,) if quick else (10, 20, 50, 100, 200, 400), []
    for count in counts:
        row: Row = {"images": count} | {name: [] for name in OPTIONS}
        for seed in seeds:
            order = np.random.default_rng(seed).permutation(np.flatnonzero(~known.bad))
            others = np.concatenate([order[count:], np.flatnonzero(known.bad)])
            asked = np.random.default_rng([seed, 3]).permutation(others)[:800]
            scores = _scores(encoder, pixels[order[:count]], rows(known.features, order[:count]), seed)
            for name, judge in scores.items():
                row[name].append(metrics.auroc(known.bad[asked], judge(rows(known.features, asked))[0]))
        found.append(row)
    return found


def fashion_one_class(encoder: Encoder, seeds: range, quick: bool) -> list[Row]:
    """One row: the mean of the classes."""
    per_class, classes = 160, range(1 if quick else 10)
    known, asked = fashion(encoder, per_class, "train"), fashion(encoder, 20 if quick else 80, "t10k")
    images, labels = read_gray("train")
    row: Row = {"images": per_class // 2} | {name: [] for name in OPTIONS}
    for seed in seeds:
        values: dict[str, list[float]] = {name: [] for name in OPTIONS}
        for kind in classes:
            drawn = np.sort(np.random.default_rng(seed).permutation(per_class)[: per_class // 2])
            places = np.flatnonzero(known.kinds == str(kind))[drawn]
            gray = images[np.flatnonzero(labels == kind)[drawn]]
            pixels = np.stack([fit_to_model(np.repeat(one[..., None], 3, 2), encoder.spec) for one in gray])
            for name, judge in _scores(encoder, pixels, rows(known.features, places), seed).items():
                values[name].append(metrics.auroc(asked.kinds != str(kind), judge(asked.features)[0]))
        for name, aurocs in values.items():
            row[name].append(float(np.mean(aurocs)))
    return [row]


def rendered(encoder: Encoder, seeds: range, quick: bool) -> list[Row]:
    """A row for each texture and number of good images; `aupro_30` by name beside the AUROC."""
    found = []
    grid, spec = encoder.bundle.manifest.encoder.grid, encoder.spec
    drawing = PatchScores(grid, (spec.height, spec.width))
    for kind in sorted(textures.KINDS)[: 1 if quick else None]:
        for count in (10,) if quick else (10, 40):
            row: Row = {"texture": kind, "images": count} | {name: [] for name in OPTIONS}
            row["aupro_30"] = {name: [] for name in OPTIONS}
            for seed in seeds:
                drawn = textures.render(kind, spec.height, 40, 80, seed)
                known, asked = encoder.features(drawn.good[:count]), encoder.features(drawn.test)
                for name, judge in _scores(encoder, drawn.good[:count], known, seed).items():
                    scores, distances = judge(asked)
                    maps = np.stack([drawing.drawn(one.reshape(grid)) for one in distances])
                    row[name].append(metrics.auroc(drawn.masks.any(axis=(1, 2)), scores))
                    row["aupro_30"][name].append(metrics.aupro(drawn.masks, maps))
            found.append(row)
    return found


def _scores(encoder: Encoder, pixels: Pixels, known: Features, seed: int) -> dict[str, Any]:
    """By name of OPTIONS, what gives raw scores and patch distances of features, fitted in one group on some good images."""
    changes = defect_changes(lambda frames: encoder.features(frames).patches, pixels[:DRAWN_ON], seed)

    def fitted(options: dict[str, Any]) -> Any:
        scorer = FitOptions(**options).chosen_scorer(changes)
        arrays = scorer.fit(known.embedding, known.patches, np.zeros(len(pixels), np.intp), 1, seed=seed)

        def judge(asked: Features) -> Any:
            return scorer.raw_scores(arrays, asked.embedding, asked.patches, np.zeros(len(asked.embedding), np.intp))

        return judge

    return {name: fitted(options) for name, options in OPTIONS.items()}


SECTIONS = {"elpv": elpv, "fashion": fashion_one_class, "textures": rendered}

if __name__ == "__main__":
    main()
