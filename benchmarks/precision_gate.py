"""What fp16 and int8 change, without and with the accuracy gate, on images that the gate has not seen.

    python benchmarks/precision_gate.py            3 encoders x 8 sets; writes benchmarks/results/precision_gate.json
    python benchmarks/precision_gate.py --encoders tf_efficientnet_lite0      replaces the rows of these
    python benchmarks/precision_gate.py --quick    one encoder, one set of each kind; prints only

One that was stopped goes on where it was, as long as the commit is the same. Every row names its commit.

Encoders: EfficientNet-Lite0 (depthwise) with ImageNet weights, ResNet-18 and ViT-Tiny with random weights whose batch
statistics fit the images (no other weights are at hand offline): their AUROC says little, its drift says how exact the
precision is. Sets: ELPV solar cells, four classes of Fashion-MNIST (Debian's dataset-fashion-mnist) against the other
nine, and three rendered textures with pixel truth. The gate sees good images only, with its default budget; AUROC and
AUPRO are of PatchCore on the test images, a memory bank of each graph's own: 1,000 good and 1,000 defective ones (ELPV has
452 and 715), for on 400 chance alone moves the difference of two AUROCs by a quarter of a point. `interval`: 95 % of the
drift, bootstrap over the test images, paired. `naive`: every layer in INT8, ranges by min-max. Every shipped graph is
built by tensorrt-rtx. Faults are planted in ResNet-18 and in its calibration images.
Nothing here ran on a Jetson.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import textures
import torch
from PIL import Image
from planted_faults import scale_channel
from revision import revision
from rich.console import Console
from rich.table import Table

from orinspect_edge_runtime import durable, metrics
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_edge_runtime.preprocess import PreprocessSpec, fit_to_model, read_frame
from orinspect_export.compiler import compile_report
from orinspect_export.decisions import Budget, features_of, patch_distances
from orinspect_export.exporter import ExportOptions
from orinspect_export.gate_journal import GateJournal
from orinspect_export.graph import EncoderGraph, export_encoder
from orinspect_export.head_graph import attach_head
from orinspect_export.images import ExportImages, choose_images
from orinspect_export.int8 import Quantiser, calibrate
from orinspect_export.lowering import lower_precisions
from orinspect_export.qdq import weighted_layers
from orinspect_train.encoder import Encoder, normalisation
from orinspect_train.run import encoder_record, load_imagenet, save_encoder
from orinspect_train.solar_cells import read_cells, split_cells

RESULT = Path(__file__).parent / "results" / "precision_gate.json"
JOURNAL = Path(tempfile.gettempdir(), "orinspect-precision-gate.jsonl")
FASHION = Path("/usr/share/datasets/fashion-mnist")
CONSOLE = Console(stderr=True)
ENCODERS = {"tf_efficientnet_lite0": "imagenet", "resnet18": "scratch", "vit_tiny_patch16_224": "scratch"}
CLASSES = (0, 3, 5, 8)
SIZE = {"elpv": 160, "fashion": 64, "texture": 128}
CALIBRATION, HELD_OUT, TEST = 64, 96, 1000
LARGEST_DRIFT, RESAMPLES = 0.2, 500
Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """good: uint8 [160, S, S, 3] good images. test: the same of test images. labels: bool, True: defective. masks: bool
    [N, S, S] where the truth of pixels is known."""

    name: str
    good: Any
    test: Any
    labels: Any
    masks: Any = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--encoders", default=",".join(ENCODERS))
    chosen = parser.parse_args()
    commit = revision()
    conditions = measure_conditions(0) | {"commit": commit, "sizes": SIZE, "budget": asdict(Budget())}
    names = chosen.encoders.split(",")[: 1 if chosen.quick else None]
    journal = GateJournal(JOURNAL, repr(commit).encode())
    rows: list[Row] = []
    for task in tasks(quick=chosen.quick):
        for name in names:
            rows += journal.remember(f"{name} {task.name}", lambda: list(measure(name, task)))  # noqa: B023
    rows = [row | {"commit": commit} for row in rows]
    if not chosen.quick:
        rows = in_order_of_encoders(rows + [row for row in measured_before() if row["encoder"] not in names])
    faults = planted_faults()
    show(rows, faults)
    if not chosen.quick:
        result = {"protocol": __doc__, "conditions": conditions, "rows": rows, "faults": faults}
        durable.write_bytes(RESULT, json.dumps(result, indent=2).encode() + b"\n")
        journal.drop()
    over = [row for row in rows if row["gated"] and abs(row["auroc_drift"]) > LARGEST_DRIFT]
    unlike = [row for row in rows if row["build"].get("int8_layers", 0) != row.get("int8_expected", 0)]
    return int(bool(over or unlike) or not all(fault["named"] for fault in faults))


def measured_before() -> list[Row]:
    return list(json.loads(RESULT.read_bytes())["rows"]) if RESULT.exists() else []


def in_order_of_encoders(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: list(ENCODERS).index(row["encoder"]))


def tasks(*, quick: bool) -> Iterator[Task]:
    yield elpv()
    for kind in sorted(textures.KINDS)[: 1 if quick else None]:
        yield texture(kind)
    if FASHION.is_dir():
        yield from (fashion(label) for label in CLASSES[: 1 if quick else None])
    else:
        CONSOLE.print("NOT MEASURED: Fashion-MNIST (apt install dataset-fashion-mnist)")


def texture(kind: str) -> Task:
    made = textures.render(kind, SIZE["texture"], CALIBRATION + HELD_OUT, 2 * TEST)
    return Task(f"texture {kind}", made.good, made.test, made.masks.any(axis=(1, 2)), made.masks)


def elpv() -> Task:
    split = split_cells(read_cells())
    spec = PreprocessSpec(SIZE["elpv"], SIZE["elpv"])

    def frames(cells: Any) -> Any:
        return np.stack([fit_to_model(read_frame(cell.path, spec).pixels, spec) for cell in cells])

    good, bad = split.good[:TEST], split.defective[:TEST]
    labels = np.arange(len(good) + len(bad)) >= len(good)
    return Task("elpv", frames(split.fit[: CALIBRATION + HELD_OUT]), frames([*good, *bad]), labels)


def fashion(label: int) -> Task:
    """One class is good, the nine others are defects."""
    pixels = {part: _idx(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28) for part in ("train", "t10k")}
    labels = {part: _idx(f"{part}-labels-idx1-ubyte.gz", 8) for part in ("train", "t10k")}
    good = pixels["train"][labels["train"] == label][: CALIBRATION + HELD_OUT]
    inside = pixels["t10k"][labels["t10k"] == label][:TEST]
    outside = pixels["t10k"][labels["t10k"] != label][:TEST]
    test = np.concatenate([inside, outside])
    return Task(f"fashion {label}", _enlarged(good), _enlarged(test), np.arange(len(test)) >= len(inside))


def _idx(name: str, header: int) -> Any:
    return np.frombuffer(gzip.decompress(Path(FASHION, name).read_bytes())[header:], np.uint8)


def _enlarged(pixels: Any) -> Any:
    size = (SIZE["fashion"],) * 2
    big = [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR)) for one in pixels]
    return np.repeat(np.stack(big)[..., None], 3, axis=3)


def encoder_graph(name: str, init: str, good: Any) -> EncoderGraph:
    """The encoder through the run folder that pretraining writes; random ones get the images' batch statistics."""
    torch.manual_seed(0)
    size = good.shape[1]
    encoder = Encoder(name, size)
    if init == "imagenet":
        load_imagenet(encoder)
    else:
        _fit_batch_statistics(encoder, good)
    mean, std = normalisation(name)
    record = encoder_record(
        encoder.eval(),
        init=init,
        method="none",
        mean=mean,
        std=std,
        preprocess=PreprocessSpec(size, size),
        adapted=False,
    )
    with tempfile.TemporaryDirectory(prefix="orinspect-gate-") as run:
        save_encoder(Path(run), encoder, record)
        return export_encoder(Path(run))


def _fit_batch_statistics(encoder: Any, good: Any) -> None:
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.5
            torch.nn.init.ones_(module.weight)
    batch = torch.from_numpy(good[:32].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        for _ in range(6):
            encoder.train()(batch)


def measure(name: str, task: Task) -> Iterator[Row]:
    """A row a precision: fp32, fp16 and int8 through the gate, int8 naive."""
    graph = encoder_graph(name, ENCODERS[name], task.good)
    images = ExportImages(task.good[:CALIBRATION], task.good[CALIBRATION:], ("image",) * CALIBRATION, ())
    start = time.perf_counter()
    lowered = lower_precisions(graph, images, ExportOptions(), lambda share: None)
    seconds = time.perf_counter() - start
    models = {"fp32": graph.model, **lowered.models}
    naive = calibrate(graph.model, images.calibration, "min-max")
    models["int8 naive"] = Quantiser(graph.model, images.calibration, naive).build()
    exact = None
    for precision, model in models.items():
        scores, figures = scored(model, task)
        exact = exact or (scores, figures)
        note = lowered.notes.get(precision, {})
        kept = {} if not note else {key: note[key] for key in ("layers", "lowered_work")} | {"kept": len(note["kept"])}
        gated = precision in lowered.models
        built = asdict(compile_report(attached(model, graph))) if gated else {}
        row = {"encoder": name, "task": task.name, "precision": precision, "gated": gated, **figures, **kept}
        if built and precision == "int8":
            row["int8_expected"] = len(set(weighted_layers(graph.model)).difference(note["kept"]))
        row |= {"auroc_drift": 100 * (figures["auroc"] - exact[1]["auroc"]), "gate_seconds": seconds, "build": built}
        row["interval"] = drift_interval(task.labels, exact[0], scores)
        if figures["aupro"] is not None:
            row["aupro_drift"] = 100 * (figures["aupro"] - exact[1]["aupro"])
        CONSOLE.print(f"{name} {task.name} {precision} {figures['auroc']:.4f} {row['auroc_drift']:+.2f} {kept}")
        yield row
    for precision, reason in lowered.refused.items():
        CONSOLE.print(f"{name} {task.name} {precision}: {reason}")
        yield {"encoder": name, "task": task.name, "precision": precision, "gated": False, "refused": reason,
               "auroc": None, "aupro": None, "auroc_drift": 0.0, "gate_seconds": seconds, "build": {}}  # fmt: skip


def attached(model: Any, graph: EncoderGraph) -> bytes:
    return attach_head(model, "patchcore", graph.spec, graph.preprocess).SerializeToString()


def accuracy(model: Any, task: Task) -> dict[str, float | None]:
    """Image AUROC, and AUPRO where there is pixel truth, see `scored`."""
    return scored(model, task)[1]


def scored(model: Any, task: Task) -> tuple[Any, dict[str, float | None]]:
    """Scores float32 [N] of PatchCore with a memory bank of the good images; image AUROC, and AUPRO with pixel truth."""
    known, tested = (features_of(model, frames)["patches"] for frames in (task.good, task.test))
    distances = patch_distances(known, tested)
    scores = distances.max(axis=1)
    found: dict[str, float | None] = {"auroc": metrics.auroc(task.labels, scores), "aupro": None}
    if task.masks is not None:
        found["aupro"] = metrics.aupro(task.masks, _maps(distances, task.masks.shape[1]))
    return scores, found


def drift_interval(labels: Any, exact: Any, scores: Any) -> list[float]:
    """95 % of the change of AUROC, in points, over test images drawn again among the good and among the defective."""
    rng = np.random.default_rng(0)
    drifts = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([rng.choice(group, len(group)) for group in map(np.flatnonzero, (labels, ~labels))])
        drifts.append(metrics.auroc(labels[drawn], scores[drawn]) - metrics.auroc(labels[drawn], exact[drawn]))
    return [100 * float(edge) for edge in np.percentile(drifts, [2.5, 97.5])]


def _maps(distances: Any, size: int) -> Any:
    side = round(distances.shape[1] ** 0.5)
    grids = distances.reshape(-1, side, side).astype(np.float32)
    return np.stack([np.asarray(Image.fromarray(g).resize((size, size), Image.Resampling.BILINEAR)) for g in grids])


def planted_faults() -> list[Row]:
    """One fault of each kind, and what the export says of it."""
    made = textures.render("weave", SIZE["texture"], CALIBRATION + HELD_OUT, 2)
    graph = encoder_graph("resnet18", "scratch", made.good)
    images = ExportImages(made.good[:CALIBRATION], made.good[CALIBRATION:], ("image",) * CALIBRATION, ())
    return [
        _planted(graph, images, "one channel 1000 times as large", "int8", 1e3),
        _planted(graph, images, "fp16 overflow", "fp16", 1e6),
        _black_calibration(),
    ]


def _planted(graph: EncoderGraph, images: ExportImages, fault: str, precision: str, factor: float) -> Row:
    planted, victim = scale_channel(graph.model, factor)
    broken = EncoderGraph(planted, graph.spec, graph.preprocess)
    lowered = lower_precisions(broken, images, ExportOptions((precision,)), lambda share: None)
    told = lowered.refused.get(precision) or lowered.notes[precision]["warnings"].get(victim, "")
    return {"fault": fault, "layer": victim, "named": victim in str(lowered) and bool(told), "told": told}


def _black_calibration() -> Row:
    with tempfile.TemporaryDirectory(prefix="orinspect-gate-") as folder:
        for index in range(40):
            noise = np.random.default_rng(index).integers(0, 3, (128, 128, 3), np.uint8)
            Image.fromarray(noise).save(Path(folder, f"{index:02}.png"))
        try:
            choose_images(Path(folder), PreprocessSpec(128, 128))
        except (InputError, CheckFailed) as error:
            return {"fault": "black calibration images", "named": ".png" in str(error), "told": str(error)}
    return {"fault": "black calibration images", "named": False, "told": ""}


def show(rows: list[Row], faults: list[Row]) -> None:
    table = Table(
        "encoder", "set", "precision", "AUROC", "drift", "95 %", "AUPRO", "drift", "kept", "built", title="Precisions"
    )
    for row in rows:
        cells = ["-" if row.get(key) is None else f"{row[key]:{form}}" for key, form in FORMS]
        kept = f"{row['kept']} of {row['layers']}, {1 - row['lowered_work']:.0%} of work" if "kept" in row else ""
        build = row["build"]
        built = "" if not build else (build["errors"] or [f"{build['int8_layers']} int8 of {build['layers']}"])[0]
        cells.insert(2, "{:+.2f} to {:+.2f}".format(*row["interval"]) if "interval" in row else "-")
        table.add_row(row["encoder"], row["task"], row["precision"], *cells, kept, built)
    Console(width=150).print(table)
    for fault in faults:
        Console(width=150).print(f"{fault['fault']}: {'named' if fault['named'] else 'MISSED'}: {fault['told']}")


FORMS = (("auroc", ".4f"), ("auroc_drift", "+.2f"), ("aupro", ".4f"), ("aupro_drift", "+.2f"))

if __name__ == "__main__":
    sys.exit(main())
