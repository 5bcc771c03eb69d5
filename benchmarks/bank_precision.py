"""In which precision should the memory bank be searched? Scores of PatchCore against those of a float64 search.

    python benchmarks/bank_precision.py            3 sets; writes benchmarks/results/bank_precision.json
    python benchmarks/bank_precision.py --quick    ELPV cells only; prints only

Whitened patches of EfficientNet-Lite0 (ImageNet weights), in float32 whatever the search works in; a memory bank of 1,000
rows, 150 good images known, 60 + 60 tested. `augmented` is one matrix product, [2 z, 1] @ [bank; -|bank|^2], as the graph
has it; `product` multiplies z @ bank in the precision and adds the squares in float32. fp16 rounds both operands and the
result to half precision, and sums in float32 as Tensor Cores do; int8 has one symmetric scale for the bank and one
for the patches, from the largest magnitude. `rescored`: the 8 nearest by the low precision measured again in float32.
Arithmetic is emulated in numpy: this says what the verdicts would be, not how fast a board is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from precision_gate import ENCODERS, Task, elpv, encoder_graph, fashion, texture
from revision import revision
from rich.console import Console
from rich.table import Table

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.metrics import auroc, spearman
from orinspect_edge_runtime.whitening import fit_whitening
from orinspect_export.decisions import BANK_ROWS, features_of

RESULT = Path(__file__).parent / "results" / "bank_precision.json"
ENCODER = "tf_efficientnet_lite0"
KNOWN, TESTED, RESCORED = 150, 60, 8
Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    conditions = measure_conditions(0) | {"commit": revision(), "bank_rows": BANK_ROWS}
    makers = [elpv] if quick else [elpv, lambda: texture("weave"), lambda: fashion(0)]
    rows = [row for make in makers for row in measure(few(make()))]
    show(rows)
    if not quick:
        result = {"protocol": __doc__, "conditions": conditions, "rows": rows}
        durable.write_bytes(RESULT, json.dumps(result, indent=2).encode() + b"\n")
    return 0


def few(task: Task) -> Task:
    """The same with so many images of each label."""
    chosen = np.concatenate([np.flatnonzero(task.labels == label)[:TESTED] for label in (False, True)])
    return dataclasses.replace(task, good=task.good[:KNOWN], test=task.test[chosen], labels=task.labels[chosen])


def measure(task: Task) -> list[Row]:
    model = encoder_graph(ENCODER, ENCODERS[ENCODER], task.good).model
    known, tested = (features_of(model, frames)["patches"] for frames in (task.good, task.test))
    rows = known.reshape(-1, known.shape[2])
    whitening = fit_whitening([rows])
    drawn = np.random.default_rng(0).permutation(len(rows))[:BANK_ROWS]
    bank, patches = whitening(rows[drawn]), whitening(tested)
    exact = scores(patches.astype(np.float64), bank.astype(np.float64), exact_squares)
    return [row_of(task, name, scores(patches, bank, search), exact) for name, search in SEARCHES.items()]


def scores(patches: Any, bank: Any, search: Any) -> Any:
    """Largest distance of each image [N] of [N, P, D] to its nearest row of [M, D]."""
    return np.array([np.sqrt(np.maximum(search(image, bank), 0)).max() for image in patches])


def exact_squares(image: Any, bank: Any) -> Any:
    """Squared distances [P] to the nearest row, in the precision of the arguments."""
    return np.einsum("pd,pd->p", image, image) - (2 * image @ bank.T - squares(bank)).max(axis=1)


def augmented_half(image: Any, bank: Any) -> Any:
    operands = np.float16(2 * image), np.float16(bank)
    best = np.float16(np.float32(operands[0]) @ np.float32(operands[1]).T - np.float32(np.float16(squares(bank))))
    return np.einsum("pd,pd->p", image, image) - np.float32(best).max(axis=1)


def nearness_half(image: Any, bank: Any) -> Any:
    """2 z @ bank - |bank|^2, [P, M], with the product in half precision."""
    return 2 * np.float32(np.float16(np.float32(np.float16(image)) @ np.float32(np.float16(bank)).T)) - squares(bank)


def nearness_int8(image: Any, bank: Any) -> Any:
    (left, by), (right, with_) = quantised(image), quantised(bank)
    return 2 * (left @ right.T) * (by * with_) - squares(bank)


def quantised(values: Any) -> tuple[Any, Any]:
    """Whole steps in -127..127, as float32 that multiplies exactly, and the step."""
    step = np.float32(np.abs(values).max() / 127)
    return np.round(values / step), step


def squares(rows: Any) -> Any:
    return np.einsum("md,md->m", rows, rows)


def nearest(nearness: Any, *, rescored: bool) -> Any:
    """The search by a nearness; rescored: among the 8 nearest by it, the nearest in float32."""

    def search(image: Any, bank: Any) -> Any:
        near = nearness(image, bank)
        if not rescored:
            return np.einsum("pd,pd->p", image, image) - near.max(axis=1)
        rows = bank[np.argpartition(-near, RESCORED, axis=1)[:, :RESCORED]]
        return ((image[:, None] - rows) ** 2).sum(axis=2).min(axis=1)

    return search


SEARCHES = {
    "fp32 augmented": exact_squares,
    "fp16 augmented": augmented_half,
    "fp16 product": nearest(nearness_half, rescored=False),
    "fp16 product, rescored": nearest(nearness_half, rescored=True),
    "int8 product": nearest(nearness_int8, rescored=False),
    "int8 product, rescored": nearest(nearness_int8, rescored=True),
}


def row_of(task: Task, name: str, ours: Any, exact: Any) -> Row:
    drift = 100 * (auroc(task.labels, ours) - auroc(task.labels, exact))
    error = float(np.sqrt(np.mean((ours - exact) ** 2)) / exact.std())
    return {
        "task": task.name,
        "search": name,
        "rank_correlation": spearman(ours, exact),
        "score_error_sd": error,
        "auroc": auroc(task.labels, ours),
        "auroc_drift": drift,
    }


def show(rows: list[Row]) -> None:
    table = Table("set", "search", "rank correlation", "error, SD", "AUROC", "drift", title="Precision of the search")
    for row in rows:
        figures = f"{row['rank_correlation']:.5f}", f"{row['score_error_sd']:.1e}", f"{row['auroc']:.4f}"
        table.add_row(row["task"], row["search"], *figures, f"{row['auroc_drift']:+.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main())
