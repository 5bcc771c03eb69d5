"""How large a memory bank PatchCore needs, with whitened patches and without.

    python benchmarks/bank_size.py            ELPV, three textures, four Fashion-MNIST classes; writes results/bank_size.json
    python benchmarks/bank_size.py --quick    one set of each kind; prints only

EfficientNet-Lite0 with ImageNet weights through the product's graph; sets as in precision_gate.py. The bank is a greedy
coreset of the good images' patches: 1, 5 or 10 % of them. Image AUROC and, where there is pixel truth, AUPRO.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from precision_gate import Task, _maps, encoder_graph, tasks
from revision import revision
from rich.console import Console
from rich.table import Table

from orinspect_edge_runtime import durable, metrics
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.coreset import greedy_k_centre
from orinspect_edge_runtime.scorers.patchcore import bank_columns, nearest_distances
from orinspect_edge_runtime.whitening import fit_whitening
from orinspect_export.decisions import features_of

RESULT = Path(__file__).parent / "results" / "bank_size.json"
SHARES = (0.01, 0.05, 0.1)
Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    conditions = measure_conditions(0) | {"commit": revision(), "seeds": [0]}
    rows = [row for task in tasks(quick=quick) for row in measure(task)]
    show(rows)
    if not quick:
        result = {"protocol": __doc__, "conditions": conditions, "rows": rows}
        durable.write_bytes(RESULT, json.dumps(result, indent=2).encode() + b"\n")
    return 0


def measure(task: Task) -> list[Row]:
    """A row for each kind of patches and share of them kept."""
    graph = encoder_graph("tf_efficientnet_lite0", "imagenet", task.good)
    known, tested = (features_of(graph.model, frames)["patches"] for frames in (task.good, task.test))
    whitening = fit_whitening([known.reshape(-1, known.shape[2])])
    rows = []
    for kind in ("raw", "whitened"):
        points, queries = ((whitening(x) if kind == "whitened" else x - whitening.mean) for x in (known, tested))
        flat = points.reshape(-1, points.shape[2])
        order = greedy_k_centre(flat, round(max(SHARES) * len(flat)), seed=0).indices
        for share in SHARES:
            kept = flat[order[: round(share * len(flat))]]
            rows.append(
                {"set": task.name, "patches": kind, "share": share, "bank": len(kept)} | judge(kept, queries, task)
            )
    return rows


def judge(kept: Any, queries: Any, task: Task) -> Row:
    bank, one = bank_columns(kept, np.zeros(len(kept)), 1), np.ones((1, 1), np.float32)
    distances = np.concatenate([nearest_distances(image[None], one, bank) for image in queries])
    found: Row = {"auroc": metrics.auroc(task.labels, distances.max(axis=1)), "aupro": None}
    if task.masks is not None:
        found["aupro"] = metrics.aupro(task.masks, _maps(distances, task.masks.shape[1]))
    return found


def show(rows: list[Row]) -> None:
    columns = [(kind, share) for kind in ("raw", "whitened") for share in SHARES]
    table = Table("set", *(f"{kind} {share:.0%}" for kind, share in columns), title="Image AUROC (AUPRO)")
    for name in dict.fromkeys(row["set"] for row in rows):
        found = {(row["patches"], row["share"]): row for row in rows if row["set"] == name}
        cells = [found[column] for column in columns]
        table.add_row(name, *(f"{c['auroc']:.4f}" + (f" ({c['aupro']:.3f})" if c["aupro"] else "") for c in cells))
    means = [np.mean([r["auroc"] for r in rows if (r["patches"], r["share"]) == column]) for column in columns]
    table.add_row("mean", *(f"{mean:.4f}" for mean in means))
    Console(width=150).print(table)


if __name__ == "__main__":
    sys.exit(main())
