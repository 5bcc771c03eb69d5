"""The layout int8-cpu against fp32 on this computer: is it faster, and does it decide as fp32 does?

    python benchmarks/int8_cpu.py            three encoders on ELPV at 224 pixels; writes benchmarks/results/int8_cpu.json
    python benchmarks/int8_cpu.py --quick    ResNet-18 only; prints only

Encoders are those of precision_gate.py. `naive` keeps no layer in float32, `gated` as many as the default budget asks
for, `gated by labels` as many as 0.2 points of AUROC on 200 labelled cells ask for; AUROC is of PatchCore on 200 others.
Times are of the encoder's graph for one frame on one thread, the graphs taking turns; the ratio
is of the medians, its interval of 1,000 bootstrap resamples. Only CPUs with INT8 instructions gain.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from precision_gate import CALIBRATION, ENCODERS, HELD_OUT, Task, accuracy, encoder_graph
from revision import revision
from rich.console import Console
from rich.table import Table

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.errors import CheckFailed
from orinspect_edge_runtime.preprocess import PreprocessSpec, fit_to_model, read_frame
from orinspect_export.decisions import Budget, Judge
from orinspect_export.exporter import ExportOptions
from orinspect_export.gate import pass_gate
from orinspect_export.images import ExportImages
from orinspect_export.lowering import CANDIDATES, graph_to_round
from orinspect_train.solar_cells import read_cells, split_cells

RESULT = Path(__file__).parent / "results" / "int8_cpu.json"
SIZE, TESTED, ROUNDS = 224, 100, 60
Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    conditions = measure_conditions(1) | {
        "commit": revision(),
        "size": SIZE,
        "rounds": ROUNDS,
        "cpu_flags": int8_flags(),
    }
    chosen = {name: init for name, init in ENCODERS.items() if not quick or name == "resnet18"}
    rows = [row for name, init in chosen.items() for row in measure(name, init)]
    show(rows)
    if not quick:
        result = {"protocol": __doc__, "conditions": conditions, "rows": rows}
        durable.write_bytes(RESULT, json.dumps(result, indent=2).encode() + b"\n")
    return 0


def int8_flags() -> list[str]:
    """What the processor has of INT8 instructions."""
    flags = Path("/proc/cpuinfo").read_text().split()
    return sorted({"avx512_vnni", "avx_vnni", "asimddp", "i8mm", "amx_int8"} & set(flags))


def measure(name: str, init: str) -> list[Row]:
    cells = split_cells(read_cells())
    spec = PreprocessSpec(SIZE, SIZE)
    known, test = frames_of(cells.fit[: CALIBRATION + HELD_OUT], spec), labelled(cells, slice(0, TESTED), spec)
    graph = encoder_graph(name, init, known)
    images = ExportImages(known[:CALIBRATION], known[CALIBRATION:], ("image",) * CALIBRATION, ())
    judges = {
        "gated": Judge(graph.model, images.held_out),
        "gated by labels": labelled_judge(graph, images, cells, spec),
    }
    rounded = graph_to_round(graph.model, images, judges["gated"])
    candidate, _ = CANDIDATES["int8-cpu"](rounded, images, ExportOptions(("int8-cpu",)), {})
    models, kept = {"fp32": graph.model, "naive": candidate.build(())}, {"naive": f"0 of {len(candidate.layers)}"}
    for kind, judge in judges.items():
        try:
            gated = pass_gate(candidate, graph.model, judge, Budget(), images.calibration)
        except CheckFailed as error:
            kept[kind] = f"refused: {error}"
            continue
        models[kind], kept[kind] = gated.model, f"{len(gated.kept)} of {len(candidate.layers)}"
    task = Task("elpv", known, *test)
    times = turns(models, known[:1])
    return [
        {"encoder": name, "graph": kind, "kept": kept.get(kind, "-"), "median_ms": float(np.median(times[kind]))}
        | accuracy(model, task)
        | speedup(times["fp32"], times[kind])
        for kind, model in models.items()
    ] + [{"encoder": name, "graph": kind, "kept": why} for kind, why in kept.items() if kind not in models]


def frames_of(cells: Any, spec: PreprocessSpec) -> Any:
    return np.stack([fit_to_model(read_frame(cell.path, spec).pixels, spec) for cell in cells])


def labelled(cells: Any, part: slice, spec: PreprocessSpec) -> tuple[Any, Any]:
    """Frames and labels of as many good as defective cells."""
    good, bad = cells.good[part], cells.defective[part]
    return frames_of([*good, *bad], spec), np.arange(len(good) + len(bad)) >= len(good)


def labelled_judge(graph: Any, images: ExportImages, cells: Any, spec: PreprocessSpec) -> Judge:
    frames, labels = labelled(cells, slice(TESTED, 2 * TESTED), spec)
    return Judge(graph.model, frames, labels=labels, known=images.calibration)


def turns(models: dict[str, Any], frame: Any) -> dict[str, Any]:
    """Milliseconds [ROUNDS] of each graph for one frame, one call of each in turn, after ten calls to warm up."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    sessions = {
        kind: onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for kind, model in models.items()
    }
    times: dict[str, list[float]] = {kind: [] for kind in models}
    for _ in range(ROUNDS + 10):
        for kind, session in sessions.items():
            start = time.perf_counter()
            session.run(None, {"frames": frame})
            times[kind].append((time.perf_counter() - start) * 1e3)
    return {kind: np.array(values[10:]) for kind, values in times.items()}


def speedup(exact: Any, ours: Any) -> dict[str, float]:
    """fp32's median time over ours, with a 95 % interval; rounds are resampled in pairs."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(exact), (1000, len(exact)))
    ratios = np.median(exact[drawn], axis=1) / np.median(ours[drawn], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return {
        "speedup": float(np.median(exact) / np.median(ours)),
        "speedup_low": float(low),
        "speedup_high": float(high),
    }


def show(rows: list[Row]) -> None:
    table = Table("encoder", "graph", "kept", "ms", "times as fast", "AUROC", title="INT8 laid out for CPUs")
    for row in rows:
        if "speedup" not in row:
            table.add_row(row["encoder"], row["graph"], row["kept"])
            continue
        ratio = f"{row['speedup']:.2f} ({row['speedup_low']:.2f} to {row['speedup_high']:.2f})"
        table.add_row(
            row["encoder"], row["graph"], row["kept"], f"{row['median_ms']:.1f}", ratio, f"{row['auroc']:.4f}"
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
