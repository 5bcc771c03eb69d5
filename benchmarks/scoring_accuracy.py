"""Accuracy of every scorer, what few images do to it, kinds of good image, and whether false alarms are as promised.

    python benchmarks/scoring_accuracy.py            one core; writes benchmarks/results/scoring_accuracy.json, docs/*.svg
    python benchmarks/scoring_accuracy.py --quick    a minute, prints only
    python benchmarks/scoring_accuracy.py --sections textures,shots     only those, the others stay as they were

Encoder: EfficientNet-Lite0 with ImageNet weights, not adapted, 192x192 pixels, fp32 graph in onnxruntime. All fitting and
scoring is the library's (fit_features, score_features, the graph for maps). Spread: least and most over the seeds, which
draw the images fitted on. Sections:

elpv          solar cells: image AUROC and AP with 1, 2, 3, 4 groups and as many as fit finds itself
fashion       Fashion-MNIST one-class: ten classes, each against the other nine
textures      rendered textures: image AUROC and AP, pixel AUROC, AUPRO up to 0.3, maps out of the graph
options       patchcore with each of its options, one group: image AUROC on ELPV (200 good cells, 800 drawn from the others)
              and textures, there AUPRO up to 0.3, of maps as the graph draws them
shots         AUROC on ELPV and textures with 1, 2, 4, ... good images, one group, no threshold
false_alarms  99 good cells fitted with 1 % promised, the other good cells scored: the rate seen, over 1,000 resamples.
              Scorers of patches see every fourth row and column of their grid (9 positions), so that so many fits are
              possible. The student's threshold rests on images that it has not learnt from: two students were trained on
              80 good cells each, a resample draws which 99 of all others calibrate, and fits on these and the 80

The student has a graph of its own for each set, so its accuracy is in benchmarks/student.py, beside padim's and patchcore's
on the same images: solar cells, two classes of Fashion-MNIST, the rendered textures, few images, photographs of textures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import student
import textures
import torch
from numpy.typing import NDArray
from revision import revision
from rich.console import Console
from scoring_data import Encoder, Labelled, fashion, rows, solar_cells
from scoring_plots import draw

from orinspect_edge_runtime import durable, metrics
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.features import Features, score_features
from orinspect_edge_runtime.fit import fit_features
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.patch_scores import PatchScores
from orinspect_edge_runtime.preprocess import fit_to_model, read_frame
from orinspect_edge_runtime.scorers import SCORERS
from orinspect_train.solar_cells import Cell, read_cells

ROOT = Path(__file__).parent
RESULT = ROOT / "results/scoring_accuracy.json"
CONSOLE = Console(stderr=True)
RATE = 0.01
# Those that see the same graph.
SCORERS_SHOWN = ("patchcore", "padim", "padim_mahalanobis", "knn", "mahalanobis")
STUDENTS, GIVEN = 2, 100
# Of patchcore: `projection none` with `reweight 9` is the definition of the paper's code, and of anomalib.
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "neighbours 3": {"neighbours": 3},
    "neighbours 9": {"neighbours": 9},
    "reweight 9": {"reweight": 9},
    "cosine": {"distance": "cosine"},
    "components 76": {"components": 76},
    "components 32": {"components": 32},
    "projection none": {"projection": "none"},
    "projection none, reweight 9": {"projection": "none", "reweight": 9},
    "projection none, cosine": {"projection": "none", "distance": "cosine"},
}
Row = dict[str, Any]


class Study:
    """The image sets, each encoded when a section first asks for it, and how much of everything is done."""

    def __init__(self, folder: Path, quick: bool, cache: Path | None) -> None:
        self.encoder = Encoder(folder / "encoder", cache)
        self.quick = quick
        self.seeds = range(1 if quick else 3)
        self._cells: Labelled | None = None

    @property
    def cells(self) -> Labelled:
        """The solar cells; every eighth with --quick."""
        if self._cells is None:
            self._cells = solar_cells(self.encoder, self.read_cells(), "cells-quick" if self.quick else "cells")
        return self._cells

    def read_cells(self) -> list[Cell]:
        """What the solar cells are read from."""
        return read_cells()[:: 8 if self.quick else 1]

    def drawn(self, count: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Good cells to fit on, and all other cells."""
        good = np.random.default_rng(seed).permutation(np.flatnonzero(~self.cells.bad))
        return np.sort(good[:count]), np.sort(np.concatenate([good[count:], np.flatnonzero(self.cells.bad)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--cache", type=Path, help="folder to keep the features of the solar cells in")
    chosen = parser.parse_args()
    names = chosen.sections.split(",")
    torch.set_num_threads(1)
    conditions = measure_conditions(1) | {"commit": revision()}
    with tempfile.TemporaryDirectory(prefix="orinspect-scoring-") as folder:
        study = Study(Path(folder), chosen.quick, chosen.cache)
        for name in names:
            found = SECTIONS[name](study)
            CONSOLE.print(f"[bold]{name}")
            for row in found:
                CONSOLE.print_json(json.dumps(row), indent=None)
            if not chosen.quick:
                _keep(name, {"conditions": conditions, "rows": found})
    if not chosen.quick:
        draw(json.loads(RESULT.read_bytes())["sections"], ROOT.parent / "docs")


def _keep(name: str, section: Row) -> None:
    """Replace a section of the result file."""
    result = json.loads(RESULT.read_bytes()) if RESULT.exists() else {"sections": {}}
    result["protocol"] = __doc__
    result["sections"][name] = section
    durable.write_bytes(RESULT, json.dumps(result, indent=1).encode() + b"\n")


def elpv(study: Study) -> list[Row]:
    """AUROC and AP by scorer and number of groups; 0: found by fit."""
    cells, count, found = study.cells, 100 if study.quick else 200, []
    for scorer in SCORERS_SHOWN:
        for groups in (0, 1, 2) if study.quick else (0, 1, 2, 3, 4):
            values: dict[str, list[float]] = {"auroc": [], "average_precision": [], "groups_found": []}
            for seed in study.seeds:
                fit, test = study.drawn(count, seed)
                fitted = fit_features(rows(cells.features, fit), FitOptions(scorer, groups=groups, seed=seed))
                scores, _ = score_features(SCORERS[scorer], fitted.arrays, rows(cells.features, test))
                values["auroc"].append(metrics.auroc(cells.bad[test], scores))
                values["average_precision"].append(metrics.average_precision(cells.bad[test], scores))
                values["groups_found"].append(fitted.groups.count)
            found.append({"scorer": scorer, "groups": groups, "images": count} | values)
    return found


def fashion_one_class(study: Study) -> list[Row]:
    """Mean over the classes of the AUROC of each against the rest, one value a seed; seeds draw half of the images."""
    per_class = 20 if study.quick else 160
    known = fashion(study.encoder, per_class, "train")
    asked = fashion(study.encoder, 10 if study.quick else 80, "t10k")
    found = []
    for scorer in SCORERS_SHOWN:
        by_seed: list[dict[str, float]] = []
        for seed in study.seeds:
            rng, by_class = np.random.default_rng(seed), {}
            for name in np.unique(known.kinds):
                fit = np.sort(rng.permutation(np.flatnonzero(known.kinds == name))[: per_class // 2])
                scores = _raw(scorer, rows(known.features, fit), asked.features, seed)
                by_class[str(name)] = metrics.auroc(asked.kinds != name, scores)
            by_seed.append(by_class)
        means = [float(np.mean(list(one.values()))) for one in by_seed]
        found.append({"scorer": scorer, "images": per_class // 2, "auroc": means, "by_class": by_seed[0]})
    return found


def rendered_textures(study: Study) -> list[Row]:
    """Metrics of scores and maps by scorer and texture; maps come out of the graph that runs on a device."""
    good, test = (16, 24) if study.quick else (40, 80)
    found = []
    for kind in textures.KINDS:
        drawn = [textures.render(kind, study.encoder.spec.height, good, test, seed) for seed in study.seeds]
        encoded = [(study.encoder.features(d.good), study.encoder.features(d.test)) for d in drawn]
        for scorer in SCORERS_SHOWN:
            values: dict[str, list[float]] = {}
            for seed, (d, (known, asked)) in enumerate(zip(drawn, encoded, strict=True)):
                fitted = fit_features(known, FitOptions(scorer, groups=1, seed=seed))
                bad = d.masks.any(axis=(1, 2))
                scores, _ = score_features(SCORERS[scorer], fitted.arrays, asked)
                found_here = {
                    "auroc": metrics.auroc(bad, scores),
                    "average_precision": metrics.average_precision(bad, scores),
                }
                if SCORERS[scorer].has_map:
                    maps = _maps(study.encoder, scorer, fitted.arrays, d.test)
                    found_here |= {
                        "pixel_auroc": metrics.pixel_auroc(d.masks, maps),
                        "aupro_30": metrics.aupro(d.masks, maps),
                    }
                for name, value in found_here.items():
                    values.setdefault(name, []).append(value)
            found.append({"texture": kind, "scorer": scorer, "images": good} | values)
    return found


def _maps(encoder: Encoder, scorer: str, arrays: dict[str, Any], pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    head = SCORERS[scorer].head
    backend = encoder.backend(head)
    inputs = {spec.name: arrays[spec.name] for spec in encoder.bundle.manifest.graph("fp32", head).inputs[1:]}
    backend.set_inputs(inputs)
    return np.stack([backend.run(picture[None])["anomaly_map"][0].copy() for picture in pictures])


def bank_options(study: Study) -> list[Row]:
    """A row an option, a value a seed; one group."""
    good, test, tested = (16, 24, 100) if study.quick else (40, 80, 800)
    found: list[Row] = [{"options": name, "tested": tested} for name in OPTIONS]
    for seed in study.seeds:
        fit, others = study.drawn(100 if study.quick else 200, seed)
        asked = np.sort(np.random.default_rng([seed, 3]).permutation(others)[:tested])
        for row in found:
            known, unknown = rows(study.cells.features, fit), rows(study.cells.features, asked)
            scores, _ = _by_options(row["options"], known, unknown, seed)
            row.setdefault("elpv", []).append(metrics.auroc(study.cells.bad[asked], scores))
    for kind, seed in itertools.product(textures.KINDS, study.seeds):
        drawn = textures.render(kind, study.encoder.spec.height, good, test, seed)
        known, unknown = study.encoder.features(drawn.good), study.encoder.features(drawn.test)
        grid, size = study.encoder.bundle.manifest.encoder.grid, (study.encoder.spec.height, study.encoder.spec.width)
        drawing = PatchScores(grid, size)
        for row in found:
            scores, distances = _by_options(row["options"], known, unknown, seed)
            maps = np.stack([drawing.drawn(one.reshape(grid)) for one in distances])
            row.setdefault(kind, []).append(metrics.auroc(drawn.masks.any(axis=(1, 2)), scores))
            row.setdefault(f"{kind} aupro_30", []).append(metrics.aupro(drawn.masks, maps))
    return found


def _by_options(name: str, known: Features, asked: Features, seed: int) -> tuple[Any, Any]:
    """Raw scores and distances of patchcore with those of OPTIONS."""
    scorer = FitOptions(**OPTIONS[name]).chosen_scorer()
    arrays = scorer.fit(known.embedding, known.patches, np.zeros(len(known.embedding), np.intp), 1, seed=seed)
    return scorer.raw_scores(arrays, asked.embedding, asked.patches, np.zeros(len(asked.embedding), np.intp))


def shots(study: Study) -> list[Row]:
    """AUROC against the number of good images; one value a draw of them."""
    counts, sets = ((1, 4, 16), 2) if study.quick else ((1, 2, 4, 8, 16, 32, 64), 3)
    kind, pool = "brushed", 3 * max(counts)
    drawn = textures.render(kind, study.encoder.spec.height, pool, 24 if study.quick else 60, 7)
    known, asked = study.encoder.features(drawn.good), study.encoder.features(drawn.test)
    bad = drawn.masks.any(axis=(1, 2))
    good, others = study.drawn(pool, 0)
    tested = np.sort(np.random.default_rng(1).permutation(others)[:500])
    found = []
    for scorer in SCORERS_SHOWN:
        for count in counts:
            values: dict[str, list[float]] = {"elpv": [], kind: []}
            for draw_number in range(sets):
                fit = np.sort(np.random.default_rng([draw_number, 1]).permutation(good)[:count])
                cells = rows(study.cells.features, fit)
                scores = _raw(scorer, cells, rows(study.cells.features, tested), draw_number)
                values["elpv"].append(metrics.auroc(study.cells.bad[tested], scores))
                fit = np.random.default_rng([draw_number, 2]).permutation(len(drawn.good))[:count]
                scores = _raw(scorer, rows(known, fit), asked, draw_number)
                values[kind].append(metrics.auroc(bad, scores))
            found.append({"scorer": scorer, "images": count} | values)
    return found


def _raw(scorer: str, fit: Features, test: Features, seed: int) -> NDArray[np.float64]:
    """Raw scores of a model of one group."""
    known = SCORERS[scorer]
    arrays = known.fit(fit.embedding, fit.patches, np.zeros(len(fit.embedding), np.intp), 1, seed=seed)
    scores, _ = known.raw_scores(dict(arrays), test.embedding, test.patches, np.zeros(len(test.embedding), np.intp))
    return scores.astype(np.float64)


def false_alarms(study: Study) -> list[Row]:
    """Mean rate seen over resamples, its standard error, and the quantiles of single fits."""
    return [false_alarms_of(study, scorer) for scorer in (*SCORERS_SHOWN, "student")]


def false_alarms_of(study: Study, scorer: str) -> Row:
    """Of one scorer. `learnt_besides`: good cells that it is fitted on beside those that calibrate, by student."""
    count, resamples = 99, 10 if study.quick else 1000
    if scorer == "student":
        sets = [_residuals(study, seed) for seed in range(STUDENTS)]
    else:
        good = _thinned(rows(study.cells.features, ~study.cells.bad))
        sets = [(good, np.zeros(len(good.embedding), bool))]
    rates, promised = [], 0.0
    for seed in range(resamples):
        features, learnt = sets[seed % len(sets)]
        order = np.random.default_rng([seed, 2]).permutation(np.flatnonzero(~learnt))
        fit, fresh = np.concatenate([np.flatnonzero(learnt), order[:count]]), order[count:]
        options = FitOptions(scorer, false_alarm=RATE, groups=2, seed=seed)
        fitted = fit_features(rows(features, fit), options, unseen=~learnt[fit])
        scores, _ = score_features(SCORERS[scorer], fitted.arrays, rows(features, fresh))
        rates.append(float((scores > fitted.threshold.value).mean()))
        promised = fitted.threshold.false_alarm_promised
    seen = np.array(rates)
    return {
        "scorer": scorer,
        "images": count,
        "learnt_besides": [int(learnt.sum()) for _, learnt in sets],
        "resamples": len(rates),
        "promised": promised,
        "mean": float(seen.mean()),
        "standard_error": float(seen.std() / np.sqrt(len(seen))),
        "quantiles_05_50_95": np.quantile(seen, (0.05, 0.5, 0.95)).tolist(),
    }


def _thinned(features: Features) -> Features:
    """Every fourth row and column of the patches."""
    side = round(features.patches.shape[1] ** 0.5)
    kept = np.arange(side**2).reshape(side, side)[::4, ::4].ravel()
    return Features(features.embedding, np.ascontiguousarray(features.patches[:, kept]))


def _residuals(study: Study, seed: int) -> tuple[Features, NDArray[np.bool_]]:
    """Of all good cells, by a student that was given GIVEN of them; and which of them it has learnt from, [N]."""

    def make() -> dict[str, NDArray[Any]]:
        cells = [cell for cell in study.read_cells() if cell.probability == 0]
        spec = study.encoder.spec
        pixels = np.stack([fit_to_model(read_frame(cell.path, spec).pixels, spec) for cell in cells])
        given = np.random.default_rng([seed, 3]).permutation(len(pixels))[:GIVEN]
        studied, record, _ = student.studied_by(pixels[given], seed, 20 if study.quick else student.STEPS)
        found = _thinned(student.features(studied, record, pixels)[1])
        learnt = student.learnt_from(record, pixels)
        return {"embedding": found.embedding, "patches": found.patches, "learnt": learnt}

    kept = study.encoder.kept(f"student-{seed}{'-quick' if study.quick else ''}", make)
    return Features(kept["embedding"], kept["patches"]), kept["learnt"]


SECTIONS: dict[str, Callable[[Study], list[Row]]] = {
    "elpv": elpv,
    "fashion": fashion_one_class,
    "textures": rendered_textures,
    "options": bank_options,
    "shots": shots,
    "false_alarms": false_alarms,
}

if __name__ == "__main__":
    main()
