"""What a second scale of patches is worth and costs: `orinspect export --second-scale` beside one scale, small or large.

    python benchmarks/second_scale.py            one core, a quarter of an hour; writes benchmarks/results/second_scale.json
    python benchmarks/second_scale.py --quick    about a minute, prints only

Encoder: EfficientNet-Lite0 with ImageNet weights, not adapted, fp32 graphs in onnxruntime, one thread. Looks: 192 or
320 pixels alone, and 192 with a second scale of 1.67 (320 pixels). One value a seed, which draws the images.

elpv      solar cells (300 pixels): 200 good ones, all others tested; kinds as fit finds them; image AUROC
textures  rendered at 320 pixels, with defects and pixel truth: 40 good, 80 tested; image AUROC and AUPRO up to 0.3, maps as
          the graph draws them, enlarged to 320 pixels
time      milliseconds of padim's fused graph for one frame: the looks by turns, median and quartiles of all rounds
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import textures
import torch
from numpy.typing import NDArray
from PIL import Image
from revision import revision
from rich.console import Console
from scoring_data import Encoder, rows, solar_cells

from orinspect_edge_runtime import durable, metrics
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.features import Features, score_features
from orinspect_edge_runtime.fit import fit_features
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.patch_scores import PatchScores
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_train.solar_cells import read_cells

RESULT = Path(__file__).parent / "results/second_scale.json"
CONSOLE = Console(stderr=True)
LOOKS: dict[str, dict[str, Any]] = {
    "192": {},
    "320": {"size": 320},
    "192 and 320": {"second_scale": 1.67},
}
SCORERS_SHOWN = ("padim", "padim_mahalanobis", "patchcore")
RENDERED = 320
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    result: dict[str, Any] = {"protocol": __doc__, "conditions": measure_conditions(1) | {"commit": revision()}}
    with tempfile.TemporaryDirectory(prefix="orinspect-scales-") as folder:
        names = ["192", "192 and 320"] if quick else list(LOOKS)
        encoders = {name: Encoder(Path(folder, name), **LOOKS[name]) for name in names}
        seeds = range(1 if quick else 3)
        result["time"] = times(encoders, 20 if quick else 200)
        show(result["time"])
        result["elpv"] = [row for name in encoders for row in elpv(name, encoders[name], seeds, quick)]
        show(result["elpv"])
        kinds = sorted(textures.KINDS)[: 1 if quick else None]
        result["textures"] = [
            row for kind in kinds for name in encoders for row in rendered(name, encoders[name], kind, seeds)
        ]
        show(result["textures"])
    if not quick:
        durable.write_bytes(RESULT, json.dumps(result, indent=1).encode() + b"\n")


def times(encoders: dict[str, Encoder], rounds: int) -> list[Row]:
    """Of one frame by each look, in turns."""
    backends = {name: encoder.backend("padim") for name, encoder in encoders.items()}
    frames = {
        name: np.random.default_rng(0).integers(0, 256, (1, encoder.spec.height, encoder.spec.width, 3), np.uint8)
        for name, encoder in encoders.items()
    }
    spent: dict[str, list[float]] = {name: [] for name in backends}
    for _ in range(rounds):
        for name, backend in backends.items():
            began = time.perf_counter()
            backend.run(frames[name])
            spent[name].append(1e3 * (time.perf_counter() - began))
    return [
        {"look": name, "rounds": rounds}
        | dict(zip(("quartile_1", "ms", "quartile_3"), np.percentile(values, (25, 50, 75)).tolist(), strict=True))
        for name, values in spent.items()
    ]


def elpv(name: str, encoder: Encoder, seeds: range, quick: bool) -> list[Row]:
    """Solar cells by one look, a row a scorer."""
    cells = solar_cells(encoder, read_cells()[:: 16 if quick else 1], name)
    found = [_row(name, scorer) for scorer in SCORERS_SHOWN]
    for seed in seeds:
        good, count = np.random.default_rng(seed).permutation(np.flatnonzero(~cells.bad)), 40 if quick else 200
        fit, test = np.sort(good[:count]), np.concatenate([good[count:], np.flatnonzero(cells.bad)])
        for row in found:
            scores = _scores(row["scorer"], rows(cells.features, fit), rows(cells.features, test), 0, seed)[0]
            row["auroc"].append(metrics.auroc(cells.bad[test], scores))
    return found


def rendered(name: str, encoder: Encoder, kind: str, seeds: range) -> list[Row]:
    """A rendered texture by one look, a row a scorer."""
    found = [_row(name, scorer) | {"texture": kind, "aupro_30": []} for scorer in SCORERS_SHOWN]
    grid, spec = encoder.bundle.manifest.encoder.grid, encoder.spec
    drawing = PatchScores(grid, (spec.height, spec.width))
    for seed in seeds:
        drawn = textures.render(kind, RENDERED, 40, 80, seed)
        known, asked = encoder.features(drawn.good), encoder.features(drawn.test)
        for row in found:
            scores, distances = _scores(row["scorer"], known, asked, 1, seed)
            maps = np.stack([_enlarged(drawing.drawn(one.reshape(grid))) for one in distances])
            row["auroc"].append(metrics.auroc(drawn.masks.any(axis=(1, 2)), scores))
            row["aupro_30"].append(metrics.aupro(drawn.masks, maps))
    return found


def _row(name: str, scorer: str) -> Row:
    return {"look": name, "scorer": scorer, "auroc": []}


def _scores(scorer: str, known: Features, asked: Features, groups: int, seed: int) -> tuple[Any, NDArray[np.float32]]:
    """Scores of the images asked for, and their patches' distances."""
    arrays = fit_features(known, FitOptions(scorer, groups=groups, seed=seed)).arrays
    scores, of_groups = score_features(SCORERS[scorer], arrays, asked)
    _, distances = SCORERS[scorer].raw_scores(dict(arrays), asked.embedding, asked.patches, of_groups)
    assert distances is not None
    return scores, distances


def _enlarged(anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
    picture = Image.fromarray(anomaly_map)
    return np.asarray(picture.resize((RENDERED, RENDERED), Image.Resampling.BILINEAR), np.float32)


def show(found: list[Row]) -> None:
    """Print the rows."""
    for row in found:
        CONSOLE.print_json(json.dumps(row), indent=None)


if __name__ == "__main__":
    main()
