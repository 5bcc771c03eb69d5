"""PaDiM with low-rank covariances: what is kept of the accuracy, the recipe's size and the time, by rank.

    python benchmarks/padim_rank.py            five minutes of one core; writes benchmarks/results/padim_rank.json
    python benchmarks/padim_rank.py --quick    a minute, prints only

Encoder and image sets are those of scoring_accuracy.py: patches of 152 numbers at 12x12 places. One group, raw scores, no
threshold. `full`: a covariance of 152 x 152 numbers a place. `rank K`: K x 152. `projected to R`: a full covariance of a
random projection onto R dimensions, of as many numbers as the rank before it; the seed draws it. `diagonal`: variances alone
(PaDiM-Lite, arXiv 2603.20288). AUROC of images, mean, least and most over the draws of the good images: three on ELPV (1,000
cells tested), one of each of ten classes of Fashion-MNIST against the other nine (mean over the classes), two of each
texture, there with AUPRO up to 0.3 of maps that heads.py's formula draws.

costs: megabytes a group at 144 places and at 1,024; the fit of 200 cells by the scorer alone (seconds of the processor and
of the clock, least of three in turns, on the cores that the conditions name; the peak of what numpy holds beside the
features); the graph for one frame on one thread (milliseconds of the processor, medians, in turns).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import textures
from numpy.typing import NDArray
from revision import revision
from rich.console import Console
from scoring_data import Encoder, fashion, solar_cells

from orinspect_edge_runtime import durable, metrics
from orinspect_edge_runtime.backends import open_backend
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.heads import axis_filter, neutral_inputs
from orinspect_edge_runtime.scorers.padim import Padim
from orinspect_train.solar_cells import read_cells

RESULT = Path(__file__).parent / "results/padim_rank.json"
CONSOLE = Console(stderr=True)
RANKS = (64, 32, 16, 8, 4)
# Of about as many numbers a place as the ranks: a square against rank x 152, means included.
PROJECTED = {64: 98, 32: 70, 16: 50, 8: 36, 4: 26}
TESTED = 1000
Floats = NDArray[np.float32]
Distances = Callable[[Floats, Floats, int], Floats]


@dataclass(frozen=True)
class Set:
    """known: patches [n, P, D] of good images; asked: of others, of which `bad` are not. masks: pixel truth, if any."""

    name: str
    seed: int
    known: Floats
    asked: Floats
    bad: NDArray[np.bool_]
    masks: NDArray[np.bool_] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cache", type=Path, help="folder to keep the features of the solar cells in")
    chosen = parser.parse_args()
    conditions = measure_conditions(1) | {"commit": revision()}
    with tempfile.TemporaryDirectory(prefix="orinspect-rank-") as folder:
        encoder = Encoder(Path(folder) / "encoder", chosen.cache)
        found = {"accuracy": accuracy(encoder, chosen.quick), "costs": costs(encoder, chosen.quick)}
    CONSOLE.print_json(json.dumps(found))
    if not chosen.quick:
        content = {"protocol": __doc__, "conditions": conditions} | found
        durable.write_bytes(RESULT, json.dumps(content, indent=1).encode() + b"\n")


def contenders() -> dict[str, Distances]:
    def padim(rank: int | None) -> Distances:
        return lambda known, asked, seed: _distances(Padim(rank), known, asked)

    def projected(dim: int) -> Distances:
        def run(known: Floats, asked: Floats, seed: int) -> Floats:
            drawn = np.random.default_rng([seed, dim]).standard_normal((known.shape[2], dim))
            onto = np.linalg.qr(drawn)[0].astype(np.float32)
            return _distances(Padim(), known @ onto, asked @ onto)

        return run

    found = {"full": padim(None)}
    for rank in RANKS:
        found |= {f"rank {rank}": padim(rank), f"projected to {PROJECTED[rank]}": projected(PROJECTED[rank])}
    return found | {"diagonal": _diagonal}


def _distances(scorer: Padim, known: Floats, asked: Floats) -> Floats:
    nothing = np.zeros((len(known), 1), np.float32)
    arrays = scorer.fit(nothing, known, np.zeros(len(known), np.intp), 1)
    _, distances = scorer.raw_scores(arrays, np.zeros((len(asked), 1), np.float32), asked, np.zeros(len(asked), int))
    assert distances is not None
    return distances


def _diagonal(known: Floats, asked: Floats, seed: int) -> Floats:
    """With the shrinkage of the others."""
    variances = known.var(axis=0, ddof=1)
    variances = 0.9 * variances + 0.1 * variances.mean(axis=1, keepdims=True)
    return np.asarray(np.sqrt(((asked - known.mean(axis=0)) ** 2 / variances).sum(axis=2)), np.float32)


def accuracy(encoder: Encoder, quick: bool) -> dict[str, Any]:
    """By set and contender: values, one a draw (of Fashion-MNIST the mean over the classes)."""
    values: dict[str, dict[str, dict[int, list[float]]]] = {}
    for one in sets(encoder, quick):
        CONSOLE.print(one.name, one.seed)
        for name, run in contenders().items():
            distances = run(one.known, one.asked, one.seed)
            figures = {one.name: metrics.auroc(one.bad, distances.max(axis=1))}
            if one.masks is not None:
                figures[f"{one.name}, AUPRO"] = metrics.aupro(one.masks, _maps(distances, one.masks.shape[1]))
            for key, value in figures.items():
                values.setdefault(key, {}).setdefault(name, {}).setdefault(one.seed, []).append(value)
    return {key: {name: _spread(found) for name, found in row.items()} for key, row in values.items()}


def _spread(by_seed: dict[int, list[float]]) -> dict[str, float]:
    means = [float(np.mean(values)) for values in by_seed.values()]
    return {"mean": float(np.mean(means)), "least": min(means), "most": max(means)}


def _maps(distances: Floats, size: int) -> Floats:
    side = round(distances.shape[1] ** 0.5)
    along = axis_filter(side, size)
    return np.stack([along @ grid @ along.T for grid in distances.reshape(-1, side, side)])


def sets(encoder: Encoder, quick: bool) -> Iterator[Set]:
    yield from _cells(encoder, quick)
    yield from _classes(encoder, quick)
    for kind in textures.KINDS if not quick else ["brushed"]:
        for seed in range(1 if quick else 2):
            drawn = textures.render(kind, encoder.spec.height, 40, 20 if quick else 80, seed)
            known, asked = (encoder.features(pictures).patches for pictures in (drawn.good, drawn.test))
            yield Set(f"{kind}, 40 images", seed, known, asked, drawn.masks.any(axis=(1, 2)), drawn.masks)


def _cells(encoder: Encoder, quick: bool) -> Iterator[Set]:
    cells = solar_cells(encoder, read_cells()[:: 8 if quick else 1], "cells-quick" if quick else "cells")
    for count in (20, 100) if quick else (20, 50, 100, 200):
        for seed in range(1 if quick else 3):
            good = np.random.default_rng(seed).permutation(np.flatnonzero(~cells.bad))
            others = np.concatenate([good[count:], np.flatnonzero(cells.bad)])
            tested = np.sort(np.random.default_rng([seed, 1]).permutation(others)[:TESTED])
            patches = cells.features.patches
            yield Set(f"ELPV, {count} images", seed, patches[np.sort(good[:count])], patches[tested], cells.bad[tested])


def _classes(encoder: Encoder, quick: bool) -> Iterator[Set]:
    known, asked = fashion(encoder, 20 if quick else 160, "train"), fashion(encoder, 10 if quick else 80, "t10k")
    for count in (20,) if quick else (20, 80, 160):
        for name in np.unique(known.kinds):
            chosen = np.flatnonzero(known.kinds == name)[:count]
            patches = known.features.patches[chosen]
            yield Set(f"Fashion-MNIST, {count} images", 0, patches, asked.features.patches, asked.kinds != name)


def costs(encoder: Encoder, quick: bool) -> list[dict[str, Any]]:
    ranks = (None, 8) if quick else (None, *RANKS)
    cells = solar_cells(encoder, read_cells()[:: 8 if quick else 1], "cells-quick" if quick else "cells")
    known = cells.features.patches[np.flatnonzero(~cells.bad)[:200]]
    arrays = {rank: _fit(known, rank) for rank in ranks}
    spent = _fitting(known, ranks, 1 if quick else 3)
    shown = _graph_ms(encoder, arrays, 5 if quick else 40)
    return [_size(arrays[rank]) | {"rank": rank or 0} | spent[rank] | {"graph_cpu_ms": shown[rank]} for rank in ranks]


def _fit(known: Floats, rank: int | None) -> dict[str, Any]:
    return Padim(rank).fit(np.zeros((len(known), 1), np.float32), known, np.zeros(len(known), int), 1)


def _size(arrays: dict[str, Any]) -> dict[str, float]:
    """Megabytes of a group's own arrays, at the places there are and at 1,024."""
    own = sum(arrays[f"patch_{name}"].nbytes for name in ("means", "factors", "scales"))
    places = arrays["patch_means"].shape[1]
    return {"places": places, "group_mb": own / 1e6, "group_mb_at_1024": own / 1e6 / places * 1024}


def _fitting(known: Floats, ranks: tuple[int | None, ...], times: int) -> dict[int | None, dict[str, float]]:
    found: dict[int | None, dict[str, float]] = {rank: {"fit_cpu_s": np.inf, "fit_wall_s": np.inf} for rank in ranks}
    for _ in range(times):
        for rank, row in found.items():
            cpu, wall = time.process_time(), time.perf_counter()
            _fit(known, rank)
            row["fit_cpu_s"] = min(row["fit_cpu_s"], time.process_time() - cpu)
            row["fit_wall_s"] = min(row["fit_wall_s"], time.perf_counter() - wall)
    for rank, row in found.items():
        tracemalloc.start()
        _fit(known, rank)
        row["fit_peak_mb"] = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
    return found


def _graph_ms(encoder: Encoder, arrays: dict[int | None, Any], rounds: int) -> dict[int | None, float]:
    spec, frame = encoder.bundle.manifest.graph("fp32", "padim"), np.zeros((1, 192, 192, 3), np.uint8)
    neutral, spent = neutral_inputs("padim", encoder.bundle.manifest.encoder), {rank: list[float]() for rank in arrays}
    with open_backend(encoder.bundle.read(spec.file), spec, threads=1) as backend:
        ready = {rank: backend.prepare(neutral | fitted) for rank, fitted in arrays.items()}
        for _ in range(rounds + 2):
            for rank, prepared in ready.items():
                start = time.process_time()
                backend.run(frame, prepared)
                spent[rank].append((time.process_time() - start) * 1e3)
    return {rank: float(np.median(values[2:])) for rank, values in spent.items()}


if __name__ == "__main__":
    main()
