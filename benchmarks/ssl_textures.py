"""Photographed textures (brick, grass, gravel of scikit-image) with rendered defects: ImageNet, scratch and adapted.

    python benchmarks/ssl_textures.py                     writes benchmarks/results/ssl_textures.json, docs/ssl-textures.svg
    python benchmarks/ssl_textures.py --rows imagenet     only these rows; the others stay as they were
    python benchmarks/ssl_textures.py --sheet FILE.png    only a sheet of the pictures to look at
    python benchmarks/ssl_textures.py --quick             one texture, one seed, unadapted: under a minute, prints only

Each texture is one photograph of 512x512 pixels. Good pictures to learn from are crops of its left 55 %, mirrored at
random; test pictures are crops of the right 45 %, under a lamp of their own, every second one with a scratch, a stain or a
smear that textures.py draws, with pixel truth. `orinspect pretrain`'s function adapts on the good ones; the adapted
encoder is scored whether the run's own check kept it (`kept`) or put it aside, by the project's `patchcore`, `padim` and
`mahalanobis` (which has no map), one group, maps upsampled as the graph does. One thread; `cpu_seconds` of the whole call.

Rows: imagenet and scratch are tf_efficientnet_lite0 and are not trained; the others start from the ImageNet weights.
Figures are image AUROC and AUPRO up to a false positive rate of 0.3, one value a seed. Seeds draw crops, defects, training.
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
from ssl_plots import draw_textures

from orinspect_edge_runtime import durable, metrics
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.heads import axis_filter
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_train.augment import normalise
from orinspect_train.config import make_config
from orinspect_train.encoder import Encoder, normalisation
from orinspect_train.pretrain import open_encoder, pretrain
from orinspect_train.run import load_weights
from orinspect_train.run_folder import DROPPED, WEIGHTS

ROOT = Path(__file__).parent
RESULT = ROOT / "results/ssl_textures.json"
CONSOLE = Console(stderr=True)
NAMES = ("brick", "grass", "gravel")
SCORERS_SHOWN = ("patchcore", "padim", "mahalanobis")
SIZE, GOOD, TEST, BATCH = 192, 120, 90, 30
LEARNT_SHARE = 0.55
BASE = {"size": SIZE, "policy": "texture", "precision": "bf16", "batch_size": 32}
# Settings of pretraining; epochs 0: not trained.
ROWS: dict[str, dict[str, Any]] = {
    "imagenet": {"epochs": 0},
    "scratch": {"epochs": 0, "init": "scratch"},
    "synthetic_defects": {"method": "synthetic_defects", "epochs": 6},
    "nsa": {"method": "nsa", "epochs": 6},
    "densecl": {"method": "densecl", "epochs": 6},
}
Row = dict[str, Any]
Pixels = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sheet", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.sheet is not None:
        write_sheet(chosen.sheet)
        return
    names, rows, seeds = (NAMES[:1], ["imagenet"], 1) if chosen.quick else (NAMES, chosen.rows.split(","), chosen.seeds)
    conditions = measure_conditions(1) | {"commit": revision()}
    for row in rows:
        found = {name: [measure(name, ROWS[row], seed) for seed in range(seeds)] for name in names}
        CONSOLE.print(f"[bold]{row}")
        CONSOLE.print_json(json.dumps(found))
        if not chosen.quick:
            _keep(row, {"conditions": conditions, "settings": BASE | ROWS[row], "textures": found})
    if not chosen.quick:
        draw_textures(json.loads(RESULT.read_bytes())["rows"], ROOT.parent / "docs/ssl-textures.svg")


def _keep(name: str, row: Row) -> None:
    """Replace a row of the result file."""
    result = json.loads(RESULT.read_bytes()) if RESULT.exists() else {"rows": {}}
    result["protocol"] = __doc__
    result["rows"][name] = row
    durable.write_bytes(RESULT, json.dumps(result, indent=1).encode() + b"\n")


def measure(name: str, settings: Row, seed: int) -> Row:
    """Figures by scorer of one texture and seed, and what the run came to."""
    drawn = photographed(name, seed)
    encoder, note = adapt(drawn.good, BASE | settings | {"seed": seed})
    bad = drawn.masks.any(axis=(1, 2))
    (embeddings, known), (shown, asked) = features(encoder, drawn.good), features(encoder, drawn.test)
    for scorer in SCORERS_SHOWN:
        arrays = SCORERS[scorer].fit(embeddings, known, np.zeros(len(known), np.intp), 1, seed=seed)
        scores, distances = SCORERS[scorer].raw_scores(arrays, shown, asked, np.zeros(len(asked), np.intp))
        note[scorer] = {"auroc": metrics.auroc(bad, scores)}
        if distances is not None:
            note[scorer]["aupro_30"] = metrics.aupro(drawn.masks, heat_maps(distances, encoder))
    return note


def photographed(name: str, seed: int, good: int = GOOD, test: int = TEST) -> textures.Textures:
    """Crops of a photograph: the good ones from its left part, the tested ones from the rest of it."""
    import skimage.data

    photograph = getattr(skimage.data, name)().astype(np.float64)
    photograph -= photograph.mean()
    border = round(LEARNT_SHARE * photograph.shape[1])
    rng = np.random.default_rng([seed, NAMES.index(name)])
    parts = (photograph[:, :border], photograph[:, border:])
    known, asked = (lambda rng, size, part=part: crop(part, rng, size) for part in parts)
    return textures.compose(known, asked, SIZE, good, test, rng)


def crop(part: NDArray[np.float64], rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """A square [size, size] from anywhere in [H, W], mirrored left to right or not."""
    top, left = (int(rng.integers(0, side - size + 1)) for side in part.shape)
    return part[top : top + size, left : left + size][:, :: rng.choice([-1, 1])].copy()


def adapt(good: Pixels, settings: Row) -> tuple[Encoder, Row]:
    """The adapted encoder, and what the run came to."""
    config = make_config(settings)
    with tempfile.TemporaryDirectory(prefix="orinspect-ssl-") as folder:
        data, run = Path(folder, "data"), Path(folder, "run")
        data.mkdir()
        for number, picture in enumerate(good):
            Image.fromarray(picture).save(data / f"{number:03}.png")
        began = time.process_time()
        outcome = pretrain(data, run, config)
        seconds = time.process_time() - began
        encoder = open_encoder(config)
        load_weights(encoder, run / (DROPPED if (run / DROPPED).exists() else WEIGHTS))
    note: Row = {"cpu_seconds": round(seconds, 1), "steps": outcome.steps, "kept": outcome.adapted}
    if outcome.alignment:
        note["drawn_defects"] = {when: outcome.alignment[when]["mean"] for when in ("unadapted", "adapted")}
    return encoder.eval(), note


def features(encoder: Encoder, pixels: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings [N, E] and patches [N, P, D], fp32."""
    mean, std = (torch.tensor(values) for values in normalisation(encoder.name))
    with torch.inference_mode():
        parts = [
            encoder(normalise(torch.from_numpy(pixels[i : i + BATCH]), mean, std)) for i in range(0, len(pixels), BATCH)
        ]
    embedding, patches = (torch.cat(values).numpy() for values in zip(*parts, strict=True))
    return embedding, patches


def heat_maps(distances: NDArray[np.float32], encoder: Encoder) -> NDArray[np.float32]:
    """Maps float32 [N, SIZE, SIZE] of patch distances [N, P], by the graph's own interpolation."""
    rows, columns = encoder.grid(SIZE, SIZE)
    grids = distances.reshape(-1, rows, columns)
    return np.asarray(axis_filter(rows, SIZE) @ grids @ axis_filter(columns, SIZE).T, np.float32)


def write_sheet(file: Path) -> None:
    """A row a texture: two good pictures, then pairs of a defective one and the same with its truth in red."""
    lines = []
    for name in NAMES:
        drawn = photographed(name, 0, 2, 8)
        marked = drawn.test.copy()
        marked[drawn.masks] = (255, 0, 0)
        pairs = [picture for number in (1, 3, 5) for picture in (drawn.test[number], marked[number])]
        lines.append(np.concatenate([*drawn.good, *pairs], axis=1))
    Image.fromarray(np.concatenate(lines)).save(file)


if __name__ == "__main__":
    main()
