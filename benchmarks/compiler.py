"""Every encoder family x precision x head, built by NVIDIA's compiler: does it build, how long, how large?

    python benchmarks/compiler.py            six encoders, 36 builds; writes benchmarks/results/compiler.json
    python benchmarks/compiler.py --quick    one encoder; prints only

The graphs are the product's own: an encoder as pretraining leaves it, exported at 192 pixels, converted to fp16 and, by
calibration on solar cells, to int8, with the head behind it. Their weights are random, because what a compiler takes
depends on operators and shapes alone. The compiler is tensorrt-rtx for compute capability 8.6: the seconds say nothing
about a Jetson, and an engine that builds here has not been run on hardware.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from revision import revision
from rich.console import Console
from rich.table import Table

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.heads import HEADS
from orinspect_edge_runtime.preprocess import PreprocessSpec, fit_to_model, read_frame
from orinspect_export.compiler import RANGES, compile_report
from orinspect_export.fp16 import to_fp16
from orinspect_export.graph import EncoderGraph, export_encoder
from orinspect_export.head_graph import attach_head
from orinspect_export.int8 import Quantiser
from orinspect_train.encoder import Encoder, normalisation
from orinspect_train.run import encoder_record, save_encoder
from orinspect_train.solar_cells import read_cells

RESULT = Path(__file__).parent / "results" / "compiler.json"
CONSOLE = Console(stderr=True)
ENCODERS = (
    "tf_efficientnet_lite0",
    "resnet18",
    "resnet50",
    "mobilenetv3_large_100",
    "convnext_atto",
    "vit_tiny_patch16_224",
)
SIZE = 192
CALIBRATION_IMAGES = 32
Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    conditions = measure_conditions(0) | {"commit": revision(), "size": SIZE, "ranges": RANGES}
    rows = list(build_all(ENCODERS[:1] if chosen.quick else ENCODERS))
    show(rows)
    if not chosen.quick:
        result = {"protocol": __doc__, "conditions": conditions, "builds": rows}
        durable.write_bytes(RESULT, json.dumps(result, indent=2).encode() + b"\n")
    return int(any(row["errors"] for row in rows))


def build_all(encoders: Sequence[str]) -> Iterator[Row]:
    """One row a build: encoder, precision, head, sizes of the two files, and the compiler's report."""
    for name in encoders:
        graph = random_encoder(name)
        frames = _frames(graph.preprocess)
        models = {"fp32": graph.model, "fp16": to_fp16(graph.model), "int8": Quantiser(graph.model, frames).build()}
        for precision, model in models.items():
            for head in HEADS:
                CONSOLE.print(f"{name} {precision} {head}")
                fused = attach_head(model, head, graph.spec, graph.preprocess).SerializeToString()
                report = asdict(compile_report(fused))
                yield {
                    "encoder": name,
                    "precision": precision,
                    "head": head,
                    "onnx_megabytes": len(fused) / 1e6,
                } | report


def random_encoder(name: str) -> EncoderGraph:
    """An encoder with random weights through the run folder that pretraining writes."""
    torch.manual_seed(0)
    encoder = Encoder(name, SIZE).eval()
    mean, std = normalisation(name)
    record = encoder_record(
        encoder, init="scratch", method="none", mean=mean, std=std, preprocess=PreprocessSpec(SIZE, SIZE), adapted=False
    )
    with tempfile.TemporaryDirectory(prefix="orinspect-compiler-") as run:
        save_encoder(Path(run), encoder, record)
        return export_encoder(Path(run))


def _frames(preprocess: PreprocessSpec) -> Any:
    """uint8 [N, SIZE, SIZE, 3]: solar cells."""
    cells = read_cells()[:CALIBRATION_IMAGES]
    return np.stack([fit_to_model(read_frame(cell.path, preprocess).pixels, preprocess) for cell in cells])


def show(rows: Sequence[Row]) -> None:
    table = Table(
        "encoder", "precision", "head", "ONNX MB", "layers", "seconds", "engine MB", "", title="Builds, SM 8.6"
    )
    for row in rows:
        figures = (
            f"{row['onnx_megabytes']:.1f}",
            str(row["layers"]),
            f"{row['seconds']:.1f}",
            f"{row['megabytes']:.1f}",
        )
        verdict = row["errors"][0] if row["errors"] else "built"
        table.add_row(row["encoder"], row["precision"], row["head"], *figures, verdict)
    Console(width=140).print(table)


if __name__ == "__main__":
    sys.exit(main())
