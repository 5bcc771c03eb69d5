"""Pretraining from scratch on Fashion-MNIST: one class against nine, and all classes, against raw pixels and no training.

    python benchmarks/ssl_fashion.py                         one-class in two CPU-minutes, all classes in 1 and 5; writes
                                                             benchmarks/results/ssl_fashion.json and docs/ssl-fashion.svg
    python benchmarks/ssl_fashion.py --forms one-class-hour,all-15,all-60      longer forms; the others stay in the file
    python benchmarks/ssl_fashion.py --keep FOLDER           the same; each class that is done is kept there, and a form
                                                             that was stopped goes on
    python benchmarks/ssl_fashion.py --quick                 a minute, prints only

Data: apt install dataset-fashion-mnist. Nothing is downloaded, no ImageNet. `orinspect pretrain`'s own function trains
tiny_resnet (small_resnet: see the `settings` of a form) on a folder of PNGs, 32 pixels a side with the black margin, one
thread, in passes that come to the minutes named; `cpu_seconds` are those of that call, reading and checks included. The
encoder is scored as training left it, whatever the run's own check says of it: `checks` has, for both that a run can be
asked for, the mean AUROC before and after, and whether the encoder would have been kept, by 384 of its pictures and 96 of
the 600.

one-class  each of ten classes: 5,400 of its 6,000 training pictures are trained on and are the memory, 600 others set the
           mean and spread of each score (needed where two are added). Test: the first 5,000 test pictures, AUROC. Rows:
           raw: mean L2 distance of the pixels to the 5 nearest. untrained, pretrained: the project's scorer `knn` on the
           embeddings of the graph that `orinspect export` writes; "four turns": on those of `export --turns`. The short
           form trains by `rotation`, the hour by `csi`.
           classifier: how unsure the pretext's own classifier is of four turned copies (minus the mean log probability
           of the right turn), which a bundle cannot do: the classifier is dropped after training.
all        kNN (20 neighbours, L2 on standardised embeddings) with all 60,000 labelled training pictures and with 20,000, and
           linear accuracy (the ridge regression of `orinspect probe`, 20,000) on the 10,000 test pictures.

Settings were chosen on training pictures: one-class of five classes against others', all by the first 50,000 against the
last 10,000 (that milder crops help was first seen on test pictures). No row was chosen by its test figure: all are shown.
Rows without raw pixels and classifier are what `orinspect pretrain`, `export` and `fit --scorer knn` give.
Intervals: 95 %, bootstrap over the ten classes (one-class) or over the test pictures (all), paired with raw pixels.
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
import onnxruntime
import torch
from numpy.typing import NDArray
from revision import revision
from rich.console import Console
from ssl_plots import draw_fashion

from orinspect_edge_runtime import durable, metrics
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_export.graph import export_encoder
from orinspect_train.alignment import ANOMALIES, MOST_FIT, MOST_HELD_OUT, Check, has_helped
from orinspect_train.checkpoint import read_checkpoint
from orinspect_train.config import make_config
from orinspect_train.encoder import normalisation
from orinspect_train.images import ImageSet
from orinspect_train.label_probe import fit_linear
from orinspect_train.methods.rotation import TURNS
from orinspect_train.pretrain import open_encoder, open_pretraining, pretrain
from orinspect_train.run import encoder_record, save_encoder
from orinspect_train.run_folder import CHECKPOINT
from orinspect_train.training import Pretraining

ROOT = Path(__file__).parent
RESULT = ROOT / "results/ssl_fashion.json"
CONSOLE = Console(stderr=True)
CALIBRATION, BANK, NEIGHBOURS, BATCH, RESAMPLES = 600, 20_000, 20, 250, 2000
COMMON = {"encoder": "tiny_resnet", "init": "scratch", "size": 32, "policy": "gray_upright", "precision": "bf16"}
Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Row = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """What is measured, on how many training and test pictures at most, and the settings of the runs."""

    measure: Callable[[Form, Path | None], Row]
    settings: Row
    most_known: int = 60_000
    most_asked: int = 10_000
    classes: int = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--forms", default="one-class,all-1,all-5", help=", ".join(FORMS))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name in QUICK if chosen.quick else chosen.forms.split(","):
        form = (QUICK if chosen.quick else FORMS)[name]
        conditions = measure_conditions(1) | {"commit": revision(), "settings": form.settings}
        row = form.measure(form, None if chosen.keep is None else chosen.keep / name)
        CONSOLE.print(f"[bold]{name}")
        CONSOLE.print_json(json.dumps(row))
        if not chosen.quick:
            _keep(name, row | {"conditions": conditions})
    if not chosen.quick:
        draw_fashion(json.loads(RESULT.read_bytes())["forms"], ROOT.parent / "docs/ssl-fashion.svg")


def _keep(name: str, row: Row) -> None:
    """Replace a form's row of the result file."""
    result = json.loads(RESULT.read_bytes()) if RESULT.exists() else {"forms": {}}
    result["protocol"] = __doc__
    result["forms"][name] = row
    durable.write_bytes(RESULT, json.dumps(result, indent=1).encode() + b"\n")


def one_class(form: Form, keep: Path | None) -> Row:
    """Image AUROC by row and class, means, and intervals of the differences from raw pixels. keep: of --keep."""
    found: dict[str, list[float]] = {}
    runs = []
    for number in range(form.classes):
        outcome = one_against_nine(number, form, keep)
        for row, auroc in outcome["auroc"].items():
            found.setdefault(row, []).append(auroc)
        runs.append(outcome["run"] | {"class": fashion.CLASSES[number]})
        CONSOLE.print(fashion.CLASSES[number], {row: round(values[-1], 3) for row, values in found.items()})
    rows = {row: {"mean": float(np.mean(v)), "by_class": v} | against(v, found["raw"]) for row, v in found.items()}
    return {"rows": rows, "runs": runs, "cpu_seconds": sum(run["cpu_seconds"] for run in runs)}


def one_against_nine(number: int, form: Form, keep: Path | None) -> Row:
    """`auroc` by row of a class, and what its `run` came to; read from `keep` where it was left there before."""
    file = None if keep is None else keep / f"{number}.json"
    if file is not None and file.exists():
        return dict(json.loads(file.read_bytes()))
    known, asked = fashion.read("train"), fashion.read("t10k")
    own = known.pixels[known.labels == number][: form.most_known]
    rest = max(len(own) - CALIBRATION, len(own) // 2)
    scores, note = class_scores(own[:rest], own[rest:], asked.pixels[: form.most_asked], form.settings)
    bad = asked.labels[: form.most_asked] != number
    outcome = {"auroc": {row: metrics.auroc(bad, values) for row, values in scores.items()}, "run": note}
    if file is not None:
        durable.write_bytes(file, json.dumps(outcome).encode())
    return outcome


def class_scores(known: Pixels, calibration: Pixels, test: Pixels, settings: Row) -> tuple[dict[str, Floats], Row]:
    """Scores of the test pictures by row, and what the run came to; `calibration` was not trained on."""
    module, note = adapt(known, settings)
    untrained = open_module(known, settings)
    sets = (known, np.concatenate([calibration, test]))
    turned = [exported_embeddings(module, pixels) for pixels in sets]
    upright = module.encoder.embedding_dim
    scores = {
        "raw": nearest(*map(flat, sets)),
        "untrained": embedding_knn(*(embed(untrained, pixels) for pixels in sets)),
        "pretrained": embedding_knn(*(np.ascontiguousarray(values[:, :upright]) for values in turned)),
        "four turns": embedding_knn(*turned),
        "classifier": unsure_of_turn(module, turned[1]),
    }
    unseen = {name: standard(values, len(calibration)) for name, values in scores.items()}
    for pair in (("pretrained", "raw"), ("pretrained", "classifier"), ("four turns", "classifier")):
        unseen[" + ".join(pair)] = sum((unseen[name] for name in pair), np.zeros(len(test), np.float32))
    return unseen, note | {"checks": checks(untrained, module, known, calibration)}


def checks(untrained: Pretraining, trained: Pretraining, known: Pixels, calibration: Pixels) -> Row:
    """Of each check that a run can be asked for: mean AUROC before and after, and whether the encoder would be kept."""
    found: Row = {}
    for name, anomalies in ANOMALIES.items():
        check = Check(known[:MOST_FIT], calibration[:MOST_HELD_OUT], 0, "fp32", anomalies)
        before, after = check.measure(untrained), check.measure(trained)
        found[name] = {"before": before.mean, "after": after.mean, "kept": has_helped(before, after)}
    return found


def standard(scores: Floats, calibration: int) -> Floats:
    """The scores behind the first `calibration` ones, in units of these."""
    good = scores[:calibration]
    return np.asarray((scores[calibration:] - good.mean()) / good.std(), np.float32)


def all_classes(form: Form, keep: Path | None) -> Row:
    """Accuracy of nearest neighbours and of a linear map by row, with intervals."""
    known, asked = fashion.read("train"), fashion.read("t10k")
    pixels, labels = known.pixels[: form.most_known], known.labels[: form.most_known]
    test, truth = asked.pixels[: form.most_asked], asked.labels[: form.most_asked]
    module, note = adapt(pixels, form.settings)
    rows: Row = {}
    right: dict[str, dict[str, NDArray[np.bool_]]] = {}
    untrained = open_module(pixels, form.settings)
    for name, values in {
        "raw": (flat(pixels), flat(test)),
        "untrained": (embed(untrained, pixels), embed(untrained, test)),
        "pretrained": (embed(module, pixels), embed(module, test)),
    }.items():
        few, few_labels = values[0][:BANK], labels[:BANK]
        right[name] = {
            "knn": knn_labels(*values, labels, standardised=name != "raw") == truth,
            "knn, 20,000": knn_labels(few, values[1], few_labels, standardised=name != "raw") == truth,
            "linear": fit_linear(few.astype(np.float64), few_labels, values[1].astype(np.float64)) == truth,
        }
        rows[name] = {m: {"accuracy": float(v.mean())} | against(v, right["raw"][m]) for m, v in right[name].items()}
    return {"rows": rows, "runs": [note], "cpu_seconds": note["cpu_seconds"]}


def adapt(pixels: Pixels, settings: Row) -> tuple[Pretraining, Row]:
    """The encoder and the heads as the last step left them, and what the run came to."""
    config = make_config(COMMON | settings)
    with tempfile.TemporaryDirectory(prefix="orinspect-ssl-") as folder:
        data, run = Path(folder, "data"), Path(folder, "run")
        fashion.write_pictures(pixels, data)
        began = time.process_time()
        outcome = pretrain(data, run, config)
        seconds = time.process_time() - began
        done = read_checkpoint(run / CHECKPOINT)
    assert done is not None
    module = open_module(pixels, settings)
    module.load_state_dict(done.model)
    return module, {"cpu_seconds": round(seconds, 1), "steps": outcome.steps, "kept": outcome.adapted}


def open_module(pixels: Pixels, settings: Row) -> Pretraining:
    """The encoder and the heads before training, in evaluation mode."""
    config = make_config(COMMON | settings)
    return open_pretraining(config, open_encoder(config), ImageSet(pixels[:8], (), (), gray=True)).eval()


def embed(module: Pretraining, pixels: Pixels) -> Floats:
    """Embeddings float32 [N, E] of uint8 [N, H, W, 3]."""
    with torch.inference_mode():
        batches = (torch.from_numpy(pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH))
        return torch.cat([module.embedding(batch) for batch in batches]).numpy()


def exported_embeddings(module: Pretraining, pixels: Pixels) -> Floats:
    """What the graph of `orinspect export --turns` gives for uint8 [N, H, W, 3]: float32 [N, 4 E], the upright first."""
    mean, std = normalisation(module.config.encoder)
    record = encoder_record(
        module.encoder,
        init=module.config.init,
        method=module.config.method,
        mean=mean,
        std=std,
        preprocess=module.config.preprocess,
        adapted=True,
    )
    with tempfile.TemporaryDirectory(prefix="orinspect-ssl-") as run:
        save_encoder(Path(run), module.encoder, record)
        graph = export_encoder(Path(run), turns=True).model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    batches = (pixels[i : i + BATCH] for i in range(0, len(pixels), BATCH))
    return np.concatenate([session.run(["embedding"], {"frames": batch})[0] for batch in batches])


def unsure_of_turn(module: Pretraining, embeddings: Floats) -> Floats:
    """Minus the log probability of the right turn, mean over the turned copies, float32 [N] of embeddings [N, 4 E]."""
    with torch.inference_mode():
        # That of `rotation` is all its heads.
        classifier = getattr(module.heads, "turn", module.heads)
        logits = classifier(torch.from_numpy(embeddings).unflatten(1, (TURNS, -1)))
        right = torch.log_softmax(logits, 2).diagonal(dim1=1, dim2=2)
    return np.asarray(-right.mean(1).numpy(), np.float32)


def flat(pixels: Pixels) -> Floats:
    """Gray values 0..1 without the margin, float32 [N, 784], of gray uint8 [N, 32, 32, 3]."""
    inner = pixels[:, fashion.MARGIN : -fashion.MARGIN, fashion.MARGIN : -fashion.MARGIN, 0]
    return inner.reshape(len(pixels), -1).astype(np.float32) / 255


def embedding_knn(known: Floats, asked: Floats) -> Floats:
    """Scores of the project's scorer `knn`."""
    scorer, groups = SCORERS["knn"], np.zeros(len(asked), np.intp)
    arrays = scorer.fit(known, known[:, None], np.zeros(len(known), np.intp), 1)
    return scorer.raw_scores(arrays, asked, asked[:, None], groups)[0]


def nearest(known: Floats, asked: Floats) -> Floats:
    """The same without standardising."""
    dim = known.shape[1]
    arrays: dict[str, NDArray[Any]] = {
        "embedding_mean": np.zeros((1, dim), np.float32),
        "embedding_scale": np.ones((1, dim), np.float32),
        "references": known,
        "reference_counts": np.array([len(known)], np.int32),
    }
    return SCORERS["knn"].raw_scores(arrays, asked, asked[:, None], np.zeros(len(asked), np.intp))[0]


def knn_labels(known: Floats, asked: Floats, labels: NDArray[np.int64], *, standardised: bool) -> NDArray[np.int64]:
    """The most frequent label of the nearest NEIGHBOURS of each row of `asked`."""
    if standardised:
        mean, scale = known.mean(0), 1 / (known.std(0) + 1e-6)
        known, asked = (known - mean) * scale, (asked - mean) * scale
    norms, found = np.square(known).sum(1), np.empty(len(asked), np.int64)
    for begin in range(0, len(asked), BATCH):
        distance = norms - 2 * asked[begin : begin + BATCH] @ known.T
        near = labels[np.argpartition(distance, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]]
        found[begin : begin + BATCH] = (near[:, :, None] == np.arange(10)).sum(1).argmax(1)
    return found


def against(values: Any, raw: Any) -> Row:
    """Mean difference from the raw pixels' values, and its interval over resampled places."""
    gains = np.asarray(values, np.float64) - np.asarray(raw, np.float64)
    drawn = np.random.default_rng(0).integers(len(gains), size=(RESAMPLES, len(gains)))
    least, most = np.percentile(gains[drawn].mean(1), [2.5, 97.5])
    return {"over_raw": float(gains.mean()), "interval_95": [float(least), float(most)]}


ROTATION = {"method": "rotation", "learning_rate": 2e-3}
VIEWS = {
    "method": "simclr",
    "policy": "aligned_upright",
    "learning_rate": 5e-3,
    "batch_size": 256,
    "max_images": 60_000,
}
WIDER = VIEWS | {"encoder": "small_resnet"}
CONTRAST = {"method": "csi", "policy": "aligned", "learning_rate": 2e-3, "batch_size": 32}
FORMS = {
    "one-class": Form(one_class, ROTATION | {"epochs": 1}, most_asked=5000),
    "one-class-hour": Form(one_class, CONTRAST | {"epochs": 25}, most_asked=5000),
    "all-1": Form(all_classes, VIEWS | {"epochs": 1}),
    "all-5": Form(all_classes, WIDER | {"epochs": 3}),
    "all-15": Form(all_classes, WIDER | {"epochs": 10}),
    "all-60": Form(all_classes, WIDER | {"epochs": 40}),
}
QUICK = {
    "one-class": Form(one_class, ROTATION | {"epochs": 1}, most_known=1500, most_asked=1000, classes=2),
    "all-1": Form(all_classes, VIEWS | {"epochs": 1}, most_known=3000, most_asked=1000),
}

if __name__ == "__main__":
    main()
