"""What each pretraining method gains or loses on the ELPV solar cells, under the same scorers, against ImageNet alone.

    python benchmarks/ssl_elpv.py                                  every method, three seeds; writes results/ssl_elpv.json
    python benchmarks/ssl_elpv.py --methods vicreg,byol --seeds 5  adds or replaces the rows of these methods
    python benchmarks/ssl_elpv.py --variant gentle --set l2_sp=0.1 a row of its own for other settings
    python benchmarks/ssl_elpv.py --second-scale 1.67      rows whose patches are taken as by `export --second-scale`
    python benchmarks/ssl_elpv.py --quick                          one method, one seed, 20 steps, no file: about a minute

Protocol (solar_cells.py): a seeded 70 % of the good cells is adapted to and fitted on, the rest of them and all cells
with a defect probability of 2/3 or more are the test. Labels are used for the AUROC and for nothing else. What is scored
are the best weights that the run's own checks found, whether the run keeps them or not (`kept`). Every row is paired with
the unadapted encoder on the same seeds: difference in points of AUROC, mean, and its 95 % interval by a bootstrap over the
seeds and over the test cells, both paired. Features come from torch in fp32; one thread. Rows of earlier commits hold
`mahalanobis + padim`, the sum of both's scores in standard deviations of unseen good cells: now a scorer, padim_mahalanobis.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from revision import revision
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from orinspect_edge_runtime import durable, metrics
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.features import Features, score_features
from orinspect_edge_runtime.fit import fit_features
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.preprocess import fit_to_model, read_frame
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_train.augment import normalise
from orinspect_train.config import METHOD_NAMES, PretrainConfig, make_config
from orinspect_train.defect_changes import defect_changes
from orinspect_train.encoder import Encoder, normalisation
from orinspect_train.looks import Looks, looking
from orinspect_train.pretrain import open_encoder, pretrain
from orinspect_train.run import load_weights
from orinspect_train.run_folder import DROPPED, WEIGHTS
from orinspect_train.solar_cells import Cell, Split, read_cells, split_cells, write_dataset
from orinspect_train.two_scales import Size

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RESULT = Path(__file__).parent / "results" / "ssl_elpv.json"
CONSOLE = Console(stderr=True)
# Behind a name, the options of `fit`.
SCORERS_SHOWN: dict[str, dict[str, Any]] = {
    "mahalanobis": {"scorer": "mahalanobis"},
    "padim": {"scorer": "padim"},
    "patchcore": {"scorer": "patchcore"},
    "padim_mahalanobis": {"scorer": "padim_mahalanobis"},
    "padim --likelihood-ratio": {"scorer": "padim", "likelihood_ratio": True},
    "padim_mahalanobis --likelihood-ratio": {"scorer": "padim_mahalanobis", "likelihood_ratio": True},
}
# Frames that defects are drawn on for the ratio, as many as an export takes.
DRAWN_ON = 64
BASELINE = "unadapted"
BATCH, RESAMPLES = 32, 2000
# Features of uint8 [N, H, W, 3].
Look = Callable[[NDArray[np.uint8]], Features]
Scores = dict[str, NDArray[np.float64]]
# Whether each test cell is defective, and its score before and after.
Pair = tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--methods", default=",".join(METHOD_NAMES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=16, help="of 85 %% of 1,056 cells; 16 are 299 steps of 48")
    parser.add_argument("--minutes", type=float, help="of wall clock, instead of --epochs")
    parser.add_argument("--variant", default="", help="name put behind the method's for rows with other settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="TOML, of the configuration")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--scorers", default=",".join(SCORERS_SHOWN))
    parser.add_argument("--second-scale", type=float, metavar="FACTOR", help="before and after adaptation alike")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    given = tomllib.loads("\n".join(chosen.set))
    given |= {"epochs": chosen.epochs} if chosen.minutes is None else {"minutes": chosen.minutes}
    if chosen.quick:
        chosen.methods, chosen.seeds = "synthetic_defects", 1
        chosen.scorers = "mahalanobis,padim --likelihood-ratio"
        given |= {"epochs": 1, "size": 128}
    study = Study(given, tuple(chosen.scorers.split(",")), chosen.second_scale)
    variant = (
        chosen.variant if chosen.second_scale is None else f"{chosen.variant} second scale {chosen.second_scale:g}"
    )
    for seed in range(chosen.seeds):
        for method in chosen.methods.split(","):
            study.run(f"{method} {variant.strip()}".strip(), method, seed)
            show(study.rows)
            if not chosen.quick:
                write(chosen.out, study.rows)


def write(file: Path, rows: dict[str, Any]) -> None:
    """Put the rows into the file; those of other methods stay."""
    kept = json.loads(file.read_text())["rows"] if file.exists() else {}
    durable.write_bytes(file, json.dumps({"protocol": __doc__, "rows": kept | rows}, indent=1).encode() + b"\n")


class Study:
    """The cells, and what has been found with them."""

    def __init__(self, given: dict[str, Any], scorers: tuple[str, ...], second_scale: float | None = None) -> None:
        self.given, self.scorers, self.second_scale = given, scorers, second_scale
        self.rows: dict[str, Any] = {}
        self.pairs: dict[tuple[str, str], list[Pair]] = {}
        self.cells = [cell for cell in read_cells() if cell.probability == 0 or cell.probability > 0.6]
        self.labels = np.array([cell.probability > 0 for cell in self.cells])
        # Without the table of a method's options: the unadapted encoder has no method.
        config = make_config({name: value for name, value in given.items() if not isinstance(value, dict)})
        unadapted = open_encoder(config)
        spec = replace(config.preprocess, **dict(zip(("height", "width"), self._seen(unadapted)[1], strict=True)))
        frames = (fit_to_model(read_frame(cell.path, spec).pixels, spec) for cell in self.cells)
        self.pixels = np.stack(list(track(frames, "cells", total=len(self.cells), console=CONSOLE)))
        self.unadapted = self.look(unadapted)
        self.features = self.unadapted(self.pixels)
        self.before: dict[int, Scores] = {}

    def run(self, name: str, method: str, seed: int) -> None:
        """Adapt with the method on a seed's split, and bring the method's row up to date."""
        if seed not in self.before:
            self.before[seed] = self.score(self.unadapted, self.features, seed)
        encoder, note = self.adapt(make_config(self.given | {"method": method, "seed": seed}))
        adapted = self.look(encoder)
        after = self.score(adapted, adapted(self.pixels), seed)
        labels = self.labels[self._test(split_cells(read_cells(), seed))]
        for scorer in self.scorers:
            self.pairs.setdefault((name, scorer), []).append((labels, self.before[seed][scorer], after[scorer]))
        row = self.rows.setdefault(name, {"runs": [], "scorers": {}})
        row["runs"].append(note)
        row["scorers"] = {scorer: compare(self.pairs[name, scorer]) for scorer in self.scorers}
        row["conditions"] = measure_conditions(0) | {"commit": revision(), "threads": 1, "settings": self.given}
        row["second_scale"] = self.second_scale

    def adapt(self, config: PretrainConfig) -> tuple[Encoder, dict[str, Any]]:
        """The best encoder that training on the seed's good cells came by, and what the run came to."""
        with tempfile.TemporaryDirectory(prefix="orinspect-ssl-") as folder:
            data, run = Path(folder, "data"), Path(folder, "run")
            write_dataset(split_cells(read_cells(), config.seed), data)
            began = time.process_time()
            outcome = pretrain(data / "train/good", run, config)
            seconds = time.process_time() - began
            encoder = open_encoder(config)
            load_weights(encoder, run / (DROPPED if (run / DROPPED).exists() else WEIGHTS))
        means = {when: outcome.alignment[when]["mean"] for when in ("unadapted", "adapted")}
        note = {"seed": config.seed, "steps": outcome.steps, "cpu_seconds": round(seconds), "kept": outcome.adapted}
        return encoder, note | {"precision": outcome.precision, "alignment": means}

    def look(self, encoder: Encoder) -> Look:
        """What gives features of frames, fp32."""
        mean, std = (torch.tensor(values) for values in normalisation(encoder.name))
        seen, _ = self._seen(encoder.eval())

        def of(pixels: NDArray[np.uint8]) -> Features:
            with torch.inference_mode():
                parts = [
                    seen(normalise(torch.from_numpy(pixels[i : i + BATCH]), mean, std))
                    for i in track(
                        range(0, len(pixels), BATCH), "features", console=CONSOLE, disable=len(pixels) < BATCH
                    )
                ]
            embedding, patches = (torch.cat(values).numpy() for values in zip(*parts, strict=True))
            return Features(embedding, patches)

        return of

    def _seen(self, encoder: Encoder) -> tuple[nn.Module, Size]:
        """What looks at the cells, and at which size."""
        return looking(encoder, (encoder.size, encoder.size), Looks(second_scale=self.second_scale))

    def score(self, look: Look, features: Features, seed: int) -> Scores:
        """Scores of the test cells of a split by scorer, in the order of `test_labels`."""
        split = split_cells(read_cells(), seed)
        fit, test = self._places(split.fit), self._test(split)
        changes, found = None, {}
        if any("likelihood_ratio" in SCORERS_SHOWN[name] for name in self.scorers):
            drawn_on = self.pixels[np.random.default_rng(seed).choice(fit, DRAWN_ON, replace=False)]
            changes = defect_changes(lambda frames: look(frames).patches, drawn_on, seed)
        for name in self.scorers:
            options = FitOptions(**SCORERS_SHOWN[name], seed=seed)
            fitted = fit_features(_rows(features, fit), options, changes=changes)
            found[name] = score_features(SCORERS[options.scorer], fitted.arrays, _rows(features, test))[0]
        return found

    def _test(self, split: Split) -> list[int]:
        return self._places((*split.good, *split.defective))

    def _places(self, cells: tuple[Cell, ...]) -> list[int]:
        places = {cell.path: index for index, cell in enumerate(self.cells)}
        return [places[cell.path] for cell in cells]


def compare(pairs: list[Pair]) -> dict[str, Any]:
    """AUROC by seed before and after, the difference in points, and its interval."""
    values = [(metrics.auroc(labels, old), metrics.auroc(labels, new)) for labels, old, new in pairs]
    gains = [100 * (new - old) for old, new in values]
    least, most = _interval(pairs)
    return {
        BASELINE: [old for old, _ in values],
        "adapted": [new for _, new in values],
        "gains_points": gains,
        "mean_gain_points": float(np.mean(gains)),
        "interval_95_points": [least, most],
    }


def _interval(pairs: list[Pair]) -> tuple[float, float]:
    """95 % of the mean gain, in points, over resampled seeds and, in each, resampled test cells of either label."""
    rng = np.random.default_rng(0)
    means = []
    for _ in range(RESAMPLES):
        gains = []
        for number in rng.integers(len(pairs), size=len(pairs)):
            labels, old, new = pairs[number]
            drawn = np.concatenate(
                [rng.choice(found, len(found)) for found in (np.flatnonzero(labels), np.flatnonzero(~labels))]
            )
            gains.append(100 * (metrics.auroc(labels[drawn], new[drawn]) - metrics.auroc(labels[drawn], old[drawn])))
        means.append(np.mean(gains))
    least, most = np.percentile(means, [2.5, 97.5])
    return float(least), float(most)


def _rows(features: Features, index: list[int]) -> Features:
    return Features(features.embedding[index], features.patches[index])


def show(rows: dict[str, Any]) -> None:
    """Print the mean gain, its interval and the least and most of the seeds, by scorer."""
    table = Table(
        "method", "seeds", "CPU s", *SCORERS_SHOWN, title="ELPV: gain over the unadapted encoder, points of AUROC"
    )
    for name, row in rows.items():
        cells = [_cell(row["scorers"].get(scorer)) for scorer in SCORERS_SHOWN]
        seconds = np.mean([note["cpu_seconds"] for note in row["runs"]])
        table.add_row(name, str(len(row["runs"])), f"{seconds:.0f}", *cells)
    Console(width=160).print(table)


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    least, most = found["interval_95_points"]
    gains = " ".join(f"{gain:+.1f}" for gain in found["gains_points"])
    return f"{found['mean_gain_points']:+.2f} [{least:+.2f}, {most:+.2f}] ({gains})"


if __name__ == "__main__":
    main()
