"""How well does the label-free signal of pretraining foretell the AUROC on real defects? ELPV solar cells, one scorer.

    python benchmarks/ssl_signal.py           26 encoders; writes results/ssl_signal.json (some 20 minutes of one core)
    python benchmarks/ssl_signal.py --quick   6 encoders at 64 pixels, no file: a minute or two

Every method is trained at each of two rates on a seeded 70 % of the good cells, a quarter of them held out for the
signal, and looked at half-way and at the end; with the untrained and the ImageNet encoder that makes 26 encoders. Of
each, two figures are taken, both by the Mahalanobis distance of the embedding, which is what training changes: the signal
(alignment.py, as a run measures it) and the AUROC of the test cells (solar_cells.py's protocol: the other good cells
against those with a defect probability of 2/3 or more). Labels are used for that AUROC and for nothing
else. Reported: Spearman's rank correlation of the two, with a 95 % interval by a bootstrap over the trainings (both looks
at a training are drawn together); the same within the methods that draw defects and within the others; and what an
encoder chosen by the signal is worth. One seed, one data set, one thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from revision import revision
from rich.console import Console
from rich.table import Table
from ssl_elpv import Study

from orinspect_edge_runtime import durable, metrics
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_train.alignment import MOST_FIT, MOST_HELD_OUT, Check, anomalies_of
from orinspect_train.checkpoint import Plan
from orinspect_train.config import DAMAGE, DEFECT_METHODS, PretrainConfig, make_config
from orinspect_train.encoder import Encoder
from orinspect_train.images import ImageSet
from orinspect_train.keeper import Keeper
from orinspect_train.methods import complete
from orinspect_train.metrics_log import start_log
from orinspect_train.pretrain import open_encoder, open_pretraining
from orinspect_train.processes import Processes
from orinspect_train.run_folder import METRICS
from orinspect_train.solar_cells import read_cells, split_cells
from orinspect_train.training import Pretraining, train

RESULT = Path(__file__).parent / "results" / "ssl_signal.json"
SCORER, SEED, HELD_OUT = "mahalanobis", 0, 0.25
METHODS = ("synthetic_defects", "nsa", "cutpaste", "densecl", "byol", "rotation")
RATES = (1e-4, 4e-4)
SIZE, BATCH, STEPS = 128, 16, 40
RESAMPLES = 2000
# A rank correlation of fewer says nothing.
FEWEST = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    began = time.process_time()
    given = {
        "size": 64 if quick else SIZE,
        "batch_size": BATCH,
        "held_out": HELD_OUT,
        "precision": "fp32",
        "initial_share": 0,
    }
    signal = Signal(given)
    signal.look("untrained", "", open_encoder(make_config(given | {"init": "scratch"})))
    signal.look("ImageNet", "", signal.start)
    for method in METHODS[:4:3] if quick else METHODS:
        for rate in RATES[:1] if quick else RATES:
            signal.train(method, rate, 6 if quick else STEPS)
    found = conclude(signal.looks)
    show(signal.looks, found)
    if not quick:
        settings = given | {"steps": STEPS, "rates": RATES, "seed": SEED, "scorer": SCORER, "threads": 1}
        conditions = measure_conditions(0) | {"commit": revision(), "cpu_seconds": round(time.process_time() - began)}
        content = {"protocol": __doc__, "settings": settings, "conditions": conditions, "found": found}
        looks = [vars(look) for look in signal.looks]
        durable.write_bytes(RESULT, json.dumps(content | {"encoders": looks}, indent=1).encode() + b"\n")


@dataclass(frozen=True)
class Look:
    """An encoder, its signal, and its AUROC on real defects. training: what it shares with other looks at one training."""

    name: str
    training: str
    method: str
    signal: float
    auroc: float


@dataclass
class Collector(Keeper):
    """Keeps the trunk of every check, and not of the best alone."""

    trunks: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)

    def _check(self, module: Pretraining, step: int) -> float | None:
        self.trunks[step] = {name: value.clone() for name, value in module.encoder.trunk.state_dict().items()}
        return super()._check(module, step)


class Signal:
    """The cells, and what was seen of each encoder."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given, self.looks = given, list[Look]()
        self.study = Study(given, (SCORER,))
        split = split_cells(read_cells(), SEED)
        self.labels = np.repeat([False, True], [len(split.good), len(split.defective)])
        places = {cell.path: index for index, cell in enumerate(self.study.cells)}
        pixels = self.study.pixels[[places[cell.path] for cell in split.fit]]
        self.images = ImageSet(pixels, tuple(cell.path for cell in split.fit), (), gray=True)
        training, held_out = self.images.split(HELD_OUT)
        self.config = complete(make_config(given))
        self.start = open_encoder(self.config)
        anomalies = anomalies_of(DAMAGE, self.start)
        self.check = Check(training[:MOST_FIT], held_out[:MOST_HELD_OUT], SEED, "fp32", anomalies)

    def look(self, name: str, method: str, encoder: Encoder, training: str = "") -> None:
        """Take both figures of an encoder."""
        signal = self.check.measure(open_pretraining(self.config, encoder, self.images)).mean
        scores = self.study.score(self.study.features(encoder), SEED)[SCORER]
        self.looks.append(Look(name, training or name, method, signal, metrics.auroc(self.labels, scores)))

    def train(self, method: str, rate: float, steps: int) -> None:
        """Train once, and look at the encoder half-way and at the end."""
        config = complete(make_config(self.given | {"method": method, "learning_rate": rate, "seed": SEED}))
        for step, trunk in self._trunks(config, steps).items():
            encoder = open_encoder(config)
            encoder.trunk.load_state_dict(trunk)
            training = f"{method} {rate:g}"
            self.look(f"{training}, step {step}", method, encoder, training)

    def _trunks(self, config: PretrainConfig, steps: int) -> dict[int, dict[str, torch.Tensor]]:
        module = open_pretraining(config, open_encoder(config), self.images)
        module.steps = steps
        plan = Plan(steps, "fp32", BATCH, 1, self.images.digest, {}, steps // 2)
        with tempfile.TemporaryDirectory(prefix="orinspect-signal-") as folder:
            start_log(Path(folder, METRICS), 0)
            keeper = Collector(Path(folder), plan, config)
            train(module.train(), self.images.split(HELD_OUT).training, keeper, Processes(), accelerator="cpu")
        return keeper.trunks


def conclude(looks: list[Look]) -> dict[str, Any]:
    """Rank correlations, and what a choice by the signal is worth, AUROC."""
    families = {
        "all": looks,
        "methods that draw defects": [look for look in looks if look.method in DEFECT_METHODS],
        "other methods": [look for look in looks if look.method and look.method not in DEFECT_METHODS],
    }
    start = next(look for look in looks if look.name == "ImageNet")
    trained = [look for look in looks if look.method]
    chosen = max(looks, key=lambda look: look.signal)
    return {
        "spearman": {name: correlate(members) for name, members in families.items() if len(members) >= FEWEST},
        "mean_gain_points": {
            name: {
                "signal": float(np.mean([100 * (look.signal - start.signal) for look in members])),
                "auroc": float(np.mean([100 * (look.auroc - start.auroc) for look in members])),
            }
            for name, members in families.items()
            if name != "all"
        },
        "auroc_of": {
            "ImageNet": start.auroc,
            "chosen by the signal": chosen.auroc,
            "mean of the trained": float(np.mean([look.auroc for look in trained])),
            "best": max(look.auroc for look in looks),
        },
        "chosen": chosen.name,
    }


def correlate(looks: list[Look]) -> dict[str, Any]:
    """Spearman's rank correlation of signal and AUROC, and its 95 % interval over resampled trainings."""
    figures = {name: [(o.signal, o.auroc) for o in looks if o.training == name] for name in {o.training for o in looks}}
    groups = [figures[name] for name in sorted(figures)]
    rng = np.random.default_rng(0)
    drawn = [_spearman([groups[i] for i in rng.integers(len(groups), size=len(groups))]) for _ in range(RESAMPLES)]
    least, most = np.nanpercentile(drawn, [2.5, 97.5])
    return {"encoders": len(looks), "value": _spearman(groups), "interval_95": [float(least), float(most)]}


def _spearman(groups: list[list[tuple[float, float]]]) -> float:
    signals, values = np.array([pair for group in groups for pair in group]).T
    return metrics.spearman(signals, values)


def show(looks: list[Look], found: dict[str, Any]) -> None:
    """Print every encoder, best signal first, and the correlations."""
    console, table = Console(width=110), Table("encoder", "signal", "AUROC on real defects")
    for look in sorted(looks, key=lambda look: -look.signal):
        table.add_row(look.name, f"{look.signal:.4f}", f"{look.auroc:.4f}")
    console.print(table)
    for name, row in found["spearman"].items():
        least, most = row["interval_95"]
        console.print(f"Spearman, {name} ({row['encoders']}): {row['value']:+.2f} ({least:+.2f} to {most:+.2f})")
    for name, row in found["mean_gain_points"].items():
        console.print(f"over ImageNet, {name}: signal {row['signal']:+.1f} points, real defects {row['auroc']:+.1f}")
    console.print(", ".join(f"{name} {value:.4f}" for name, value in found["auroc_of"].items()), f"({found['chosen']})")


if __name__ == "__main__":
    main()
