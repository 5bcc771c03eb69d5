"""The student against padim and patchcore on the same encoder: accuracy, false alarms, and what it costs.

    python benchmarks/student.py                   writes benchmarks/results/student.json (half an hour of one core)
    python benchmarks/student.py --sets gravel     only these sets, the others stay as they were
    python benchmarks/student.py --quick           gravel with few images and steps: a minute, prints only

Encoder: EfficientNet-Lite0 with ImageNet weights, not adapted, 192 pixels, fp32. `orinspect student`'s function trains on a
set's good images at its default number of steps; then every scorer is fitted on all of these images by the library's
fit_features and scores the test images. One thread; `cpu_seconds` of the training with its features and checks.

brick, grass, gravel   as in ssl_textures.py: 120 good crops, 90 tested, one group, AUPRO up to a false positive rate of 0.3
elpv                   solar cells, split as in elpv.py: 250 good ones fitted on, 250 others and 200 defective ones tested
t-shirt, ...           each class of Fashion-MNIST: 160 pictures of it, tested on 60 of each of the ten classes
brushed, granite, weave   rendered: 40 good ones, 80 tested, the images of scoring_accuracy.py's section `textures`
brushed-16, -64        few good images of brushed metal, drawn as in its section `shots`, 60 tested; a run wants 8 at least
elpv-16, -64           the first of the 250 good solar cells
latency                fp32 graphs in onnxruntime, taking turns call by call: student over padim, quartiles of the ratios

Figures are image AUROC, AUPRO, and `false_alarms`: share of good test images above the threshold that promises 5 %, one
value a seed; `all_calibrate` is what it would be if images that the student has learnt from took part in the calibration.
`drawn_defects` is what the command says of the two without labels. Nothing was chosen by these figures but what
docs/scoring.md says.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fashion
import numpy as np
import ssl_textures
import textures
import torch
from numpy.typing import NDArray
from PIL import Image
from revision import revision
from rich.console import Console

from orinspect_edge_runtime import durable, metrics
from orinspect_edge_runtime.backends import open_backend
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.features import Features, score_features
from orinspect_edge_runtime.fit import fit_features
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.heads import neutral_inputs
from orinspect_edge_runtime.learnt import fingerprint
from orinspect_edge_runtime.preprocess import PreprocessSpec, fit_to_model, read_frame
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_export.graph import export_encoder, export_student
from orinspect_export.head_graph import attach_head, graph_spec
from orinspect_train.augment import normalise
from orinspect_train.config import make_config
from orinspect_train.pretrain import pretrain
from orinspect_train.run_folder import STUDENT_ENTRY
from orinspect_train.solar_cells import read_cells, split_cells
from orinspect_train.student import load_student
from orinspect_train.student_training import STEPS, teach

RESULT = Path(__file__).parent / "results/student.json"
CONSOLE = Console(stderr=True)
SIZE, BATCH, PROMISED, ROUNDS = 192, 30, 0.05, 200
SHOWN = ("padim", "patchcore", "student")
# Of scoring_accuracy.py's section `shots`.
POOL = 192
Row = dict[str, Any]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Images:
    """good, test: uint8 [N, SIZE, SIZE, 3]. bad: bool [N] of the test images. masks: where, if that is known.

    groups: as of FitOptions.
    """

    good: Pixels
    test: Pixels
    bad: NDArray[np.bool_]
    masks: NDArray[np.bool_] | None = None
    groups: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sets", default=",".join([*SETS, "latency"]))
    parser.add_argument("--seeds", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.quick:
        drawn = ssl_textures.photographed("gravel", 0, 24, 16)
        images = Images(drawn.good, drawn.test, drawn.masks.any(axis=(1, 2)), drawn.masks, 1)
        CONSOLE.print_json(json.dumps(measure(images, 0, 20)))
        return
    for name in chosen.sets.split(","):
        if name == "latency":
            found: Any = latency()
        else:
            found = [measure(SETS[name](name, seed), seed, STEPS) for seed in range(chosen.seeds)]
        CONSOLE.print(f"[bold]{name}")
        CONSOLE.print_json(json.dumps(found))
        _keep(name, {"conditions": measure_conditions(1) | {"commit": revision(), "steps": STEPS}, "found": found})


def _keep(name: str, row: Row) -> None:
    """Replace a set's row in the result file."""
    result = json.loads(RESULT.read_bytes()) if RESULT.exists() else {"sets": {}}
    result["protocol"] = __doc__
    result["sets"][name] = row
    durable.write_bytes(RESULT, json.dumps(result, indent=1).encode() + b"\n")


def measure(images: Images, seed: int, steps: int) -> Row:
    """Figures by scorer of one set and seed, and what the training came to."""
    studied, record, note = studied_by(images.good, seed, steps)
    unseen = ~learnt_from(record, images.good)
    note |= {"images": len(images.good), "unseen": int(unseen.sum())}
    known, asked = features(studied, record, images.good), features(studied, record, images.test)
    for scorer in SHOWN:
        own = int(scorer == "student")
        options = FitOptions(scorer, groups=images.groups, seed=seed, false_alarm=PROMISED)
        fitted = fit_features(known[own], options, unseen=unseen if own else None)
        scores, groups = score_features(SCORERS[scorer], fitted.arrays, asked[own])
        row = {
            "auroc": metrics.auroc(images.bad, scores),
            "false_alarms": float((scores[~images.bad] > fitted.threshold.value).mean()),
            "promised": fitted.threshold.false_alarm_promised,
            "groups": fitted.groups.count,
        }
        if own:
            careless = fit_features(known[own], options)
            scores_of_it, _ = score_features(SCORERS[scorer], careless.arrays, asked[own])
            row["all_calibrate"] = float((scores_of_it[~images.bad] > careless.threshold.value).mean())
        if images.masks is not None:
            _, distances = SCORERS[scorer].raw_scores(fitted.arrays, asked[own].embedding, asked[own].patches, groups)
            assert distances is not None
            row["aupro_30"] = metrics.aupro(images.masks, ssl_textures.heat_maps(distances, studied.encoder))
        note[scorer] = row
    return note


def studied_by(good: Pixels, seed: int, steps: int) -> tuple[Any, Row, Row]:
    """Encoder with a student of these images, the record of its run, and what its training came to."""
    with tempfile.TemporaryDirectory(prefix="orinspect-student-") as folder:
        run, note = trained(good, Path(folder), seed, steps)
        return *load_student(run), note


def learnt_from(record: Row, pixels: Pixels) -> NDArray[np.bool_]:
    """Which of the images a run's student has learnt from, [N]."""
    learnt = set(record[STUDENT_ENTRY]["images"])
    return np.array([fingerprint(image) in learnt for image in pixels])


def trained(good: Pixels, folder: Path, seed: int, steps: int) -> tuple[Path, Row]:
    """A run with a student of these images, and what its training came to."""
    data, start, run = folder / "data", folder / "start", folder / "run"
    data.mkdir()
    for number, picture in enumerate(good):
        Image.fromarray(picture).save(data / f"{number:05}.png")
    pretrain(data, start, make_config({"epochs": 0, "size": SIZE}))
    began = time.process_time()
    taught = teach(start, data, run, steps=steps, seed=seed)
    return run, {
        "cpu_seconds": round(time.process_time() - began, 1),
        "unexplained": taught.unexplained,
        "unexplained_learnt": taught.unexplained_learnt,
        "drawn_defects": taught.drawn_defects,
    }


def features(studied: Any, record: Row, pixels: Pixels) -> tuple[Features, Features]:
    """With the encoder's patches, and with the student's residuals, fp32."""
    mean, std = (torch.tensor(record[name]) for name in ("mean", "std"))
    embedding, patches, residuals = [], [], []
    with torch.inference_mode():
        for i in range(0, len(pixels), BATCH):
            stages = studied.encoder.stages(normalise(torch.from_numpy(pixels[i : i + BATCH]), mean, std))
            embedding.append(studied.encoder.pool_embedding(stages))
            patches.append(studied.encoder.patch_map(stages))
            residuals.append(studied.student.residual_map(studied.encoder, stages))
    kept = torch.cat(embedding).numpy()
    plain, left = (torch.cat(maps).flatten(2).transpose(1, 2).numpy() for maps in (patches, residuals))
    return Features(kept, plain), Features(kept, left)


def _texture(name: str, seed: int) -> Images:
    drawn = ssl_textures.photographed(name, seed)
    return Images(drawn.good, drawn.test, drawn.masks.any(axis=(1, 2)), drawn.masks, 1)


def _rendered(name: str, seed: int) -> Images:
    drawn = textures.render(name, SIZE, 40, 80, seed)
    return Images(drawn.good, drawn.test, drawn.masks.any(axis=(1, 2)), drawn.masks, 1)


def _few(name: str, seed: int) -> Images:
    kind, count = name.split("-")
    drawn = textures.render(kind, SIZE, POOL, 60, 7)
    fit = np.random.default_rng([seed, 2]).permutation(POOL)[: int(count)]
    return Images(drawn.good[fit], drawn.test, drawn.masks.any(axis=(1, 2)), drawn.masks, 1)


def _cells(name: str, seed: int) -> Images:
    spec, split = PreprocessSpec(SIZE, SIZE), split_cells(read_cells(), seed)
    count = int(name.partition("-")[2] or 250)
    good, test = (
        np.stack([fit_to_model(read_frame(cell.path, spec).pixels, spec) for cell in cells])
        for cells in (split.fit[:count], split.good[:250] + split.defective[::3][:200])
    )
    return Images(good, test, np.arange(len(test)) >= 250)


def _class(name: str, seed: int) -> Images:
    spec, rng, own = PreprocessSpec(SIZE, SIZE), np.random.default_rng(seed), fashion.CLASSES.index(name)
    known, asked = fashion.read_gray("train"), fashion.read_gray("t10k")
    good = rng.permutation(np.flatnonzero(known[1] == own))[:160]
    test = np.concatenate([rng.permutation(np.flatnonzero(asked[1] == number))[:60] for number in range(10)])
    enlarged = [
        np.stack([fit_to_model(np.repeat(one[..., None], 3, axis=2), spec) for one in pictures])
        for pictures in (known[0][good], asked[0][test])
    ]
    return Images(enlarged[0], enlarged[1], asked[1][test] != own)


def latency() -> Row:
    """Of the two graphs with one group, one frame at a time."""
    good = ssl_textures.photographed("gravel", 0, 24, 2).good
    with tempfile.TemporaryDirectory(prefix="orinspect-student-") as folder:
        run, _ = trained(good, Path(folder), 0, 1)
        encoder = export_encoder(run)
        student = export_student(run, encoder)
        assert student is not None
    backends = []
    for head, graph in (("padim", encoder), ("student", student.encoder)):
        fused = attach_head(graph.model, head, graph.spec, graph.preprocess).SerializeToString()
        backend = open_backend(fused, graph_spec(head, "fp32", graph.spec, graph.preprocess), threads=1)
        backend.set_inputs(neutral_inputs(head, graph.spec))
        backends.append(backend)
    times = np.array([[_seconds(backend, good[i % 24][None]) for backend in backends] for i in range(ROUNDS)])[20:]
    ratios = np.quantile(times[:, 1] / times[:, 0], (0.25, 0.5, 0.75))
    fastest = dict(zip(("padim", "student"), (1e3 * times.min(axis=0)).tolist(), strict=True))
    return {"ratio_quartiles": ratios.tolist(), "least_ms": fastest, "rounds": len(times)}


def _seconds(backend: Any, frame: Pixels) -> float:
    began = time.perf_counter()
    backend.run(frame)
    return time.perf_counter() - began


SETS: dict[str, Callable[[str, int], Images]] = {
    **dict.fromkeys(("gravel", "grass", "brick"), _texture),
    **dict.fromkeys(("elpv", "elpv-16", "elpv-64"), _cells),
    **dict.fromkeys(fashion.CLASSES, _class),
    **dict.fromkeys(textures.KINDS, _rendered),
    **dict.fromkeys((f"brushed-{count}" for count in (16, 64)), _few),
}

if __name__ == "__main__":
    main()
