"""Whose Q/DQ pairs change the scores least: ours by calibrator, or NVIDIA ModelOpt's?

    python benchmarks/placements.py --modelopt PYTHON            writes benchmarks/results/placements.json
    python benchmarks/placements.py --modelopt PYTHON --quick    one encoder, one set; prints only

PYTHON: of an environment with nvidia-modelopt[onnx]. Encoders, sets and figures are those of precision_gate.py. Every
layer that is placed is in INT8, none is kept; the rest is float32. `equalised`: see equalisation.py, as `export` does it for
encoders with depthwise layers. Agreement is on held-out good images and their copies
with a piece of another pasted in (decisions.py), AUROC on the test images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from precision_gate import CALIBRATION, ENCODERS, Task, accuracy, elpv, encoder_graph, texture
from revision import revision
from rich.console import Console
from rich.table import Table

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_export.decisions import Judge
from orinspect_export.equalisation import depthwise_pairs, equalise
from orinspect_export.int8 import Quantiser, calibrate
from orinspect_export.modelopt import METHODS, modelopt_placement

RESULT = Path(__file__).parent / "results" / "placements.json"
OURS = ("mse", "min-max", "entropy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--modelopt", type=Path, required=True)
    chosen = parser.parse_args()
    conditions = measure_conditions(0) | {"commit": revision()}
    encoders = list(ENCODERS.items())[1 if chosen.quick else 0 : 2 if chosen.quick else None]
    tasks = [texture("weave")] if chosen.quick else [elpv(), texture("weave")]
    rows = [row for task in tasks for name, init in encoders for row in measure(name, init, task, chosen.modelopt)]
    show(rows)
    if not chosen.quick:
        result = {"protocol": __doc__, "conditions": conditions, "rows": rows}
        durable.write_bytes(RESULT, json.dumps(result, indent=2).encode() + b"\n")


def measure(name: str, init: str, task: Task, modelopt: Path) -> Iterator[dict[str, Any]]:
    """A row a placement."""
    model = encoder_graph(name, init, task.good).model
    calibration, held_out = task.good[:CALIBRATION], task.good[CALIBRATION:]
    judge, exact = Judge(model, held_out), accuracy(model, task)["auroc"]
    placed = {f"ours {one}": (model, calibrate(model, calibration, one)) for one in OURS}
    if depthwise_pairs(model):
        alike = equalise(model, calibration)
        placed |= {f"ours {one}, equalised": (alike, calibrate(alike, calibration, one)) for one in OURS}
    placed |= {f"ModelOpt {one}": (model, modelopt_placement(model, calibration, modelopt, one)) for one in METHODS}
    for whose, (graph, placement) in placed.items():
        rounded = Quantiser(graph, calibration, placement).build()
        agreement = judge.agreement(rounded)
        yield {
            "encoder": name,
            "task": task.name,
            "placement": whose,
            "layers": len(placement.places),
            "rank_correlation": agreement.score_rank_correlation,
            "error_sd": agreement.score_difference_sd,
            "verdict_flips": agreement.verdict_flips,
            "least_cosine": agreement.least_cosine,
            "auroc": exact,
            "auroc_drift": 100 * (accuracy(rounded, task)["auroc"] - exact),
        }


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(
        "encoder", "set", "placement", "layers", "rank", "flips", "AUROC", "drift", title="INT8, nothing kept"
    )
    for row in rows:
        figures = (f"{row['rank_correlation']:.4f}", f"{row['verdict_flips']:.2%}", f"{row['auroc']:.4f}")
        names = (row["encoder"], row["task"], row["placement"], str(row["layers"]))
        table.add_row(*names, *figures, f"{row['auroc_drift']:+.2f}")
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
