"""The demo's page: what the commands wrote, put together. Nothing is computed here that a command did not measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from orinspect_edge_runtime import charts, metrics, report
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.evaluation import Evaluation, from_json
from orinspect_edge_runtime.report import Page, Table
from orinspect_train.demo import SCORER
from orinspect_train.solar_cells import LICENCE

PRECISIONS = ("fp32", "fp16", "int8")


def write_demo_report(out: Path, commands: tuple[str, ...]) -> Page:
    """Write OUT/report.html from the demo's results and return the page."""
    results = {tag: _evaluation(out, tag) for tag in (*PRECISIONS, "other")}
    main, bench = results["fp32"], json.loads((out / "bench.json").read_bytes())
    bundle = Bundle.open(out / "bundle")
    with Detector.load(bundle, "cells-fp32") as detector:
        pictures = report.worst_pictures(main, detector)
        note = detector.recipe.false_alarm_note
    page = Page(
        title="Solar cells: from unlabelled images to verdicts",
        lead=(
            f"{bundle.manifest.encoder.name}, {_adaptation(out)} Recipe: {main.scorer}, fitted on good cells only; no "
            "defective cell was seen before the test."
        ),
        facts=report.evaluation_facts(main),
        figures=(*_evaluation_figures(main), *report.training_figures(out / "run")),
        pictures=pictures,
        tables=(_precision_table(results, bundle), report.latency_table(bench), _adaptation_table(results, out)),
        notes=(note, *NOTES),
        footer=f"{LICENCE}. Made with {bundle.manifest.created_with}.",
        commands=commands,
    )
    report.write_report(out / "report.html", page)
    return page


NOTES = (
    "The false-alarm promise is about images like the good ones it was fitted on; another camera, lamp or supplier "
    "is another distribution.",
    "The split is by cell, not by module: cells of one module can lie on both sides, so a new module may score lower.",
    "Latencies were measured on the machine named under the table, not on a Jetson: not yet run on hardware.",
)


def _evaluation(out: Path, tag: str) -> Evaluation:
    return from_json(json.loads((out / "evaluation" / tag / "evaluation.json").read_bytes()))


def cell_type(image: str) -> str:
    """`mono` or `poly`, from the file's name in the demo's dataset."""
    return Path(image).name.partition("-")[0]


def auroc_of(evaluation: Evaluation, kind: str | None = None) -> float:
    """Image AUROC on all cells or those of one type."""
    chosen = [s for s in evaluation.images if kind is None or cell_type(s.image) == kind]
    return metrics.auroc(np.array([s.is_defective for s in chosen]), np.array([s.score for s in chosen]))


def _evaluation_figures(evaluation: Evaluation) -> tuple[tuple[str, str], ...]:
    """The histogram as in every report; the ROC by cell type."""
    curves = {}
    for name, kind in (("all", None), ("mono", "mono"), ("poly", "poly")):
        chosen = [s for s in evaluation.images if kind is None or cell_type(s.image) == kind]
        labels, scores = np.array([s.is_defective for s in chosen]), np.array([s.score for s in chosen])
        fpr, tpr = metrics.roc_curve(labels, scores)[:2]
        curves[f"{name}  {metrics.auroc(labels, scores):.3f}"] = (fpr, tpr)
    histogram = report.evaluation_figures(evaluation)[0]
    return histogram, ("ROC curve, by cell type (AUROC)", charts.roc_chart(curves))


def _adaptation(out: Path) -> str:
    """One sentence on whether the encoder was adapted, from the run's own record."""
    record = _record(out)
    if record["adapted"]:
        return f"adapted to these cells without labels ({record['method']})."
    return "kept as it was: the adaptation did not pass its label-free test, so the unadapted encoder is used."


def _record(out: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((out / "run" / "encoder.json").read_bytes())
    return record


def _adaptation_table(results: dict[str, Evaluation], out: Path) -> Table:
    """Adapted against unadapted, same split, scorer and precision."""
    record = _record(out)
    adapted, unadapted = ("fp32", "other") if record["adapted"] else ("other", "fp32")
    named = {"adapted" if record["alignment"] else "unadapted again": adapted, "unadapted": unadapted}
    rows = tuple(
        (
            f"{name}{' (used everywhere else)' if tag == 'fp32' else ''}",
            *(f"{auroc_of(results[tag], kind):.4f}" for kind in (None, "mono", "poly")),
        )
        for name, tag in named.items()
    )
    gain = 100 * (auroc_of(results[adapted]) - auroc_of(results[unadapted]))
    caption = (
        f"Image AUROC by {SCORER}, fp32. Adaptation made a difference of {gain:+.2f} points on all cells of this one split. "
        f"{_unchanged(record)}{_alignment(record)}"
    )
    return Table("Adapted against unadapted, same scorer", ("encoder", "all", "mono", "poly"), rows, caption)


def _unchanged(record: dict[str, Any]) -> str:
    """Why there is little to see when training began with pretrained weights."""
    return "" if record["init"] == "scratch" else f"{SCORER} sees patches, which such a training leaves as they are. "


def _alignment(record: dict[str, Any]) -> str:
    """The run's own label-free test in words."""
    found = record["alignment"]
    if not found:
        return "Nothing was adapted."
    kinds = ", ".join(
        f"{kind} {found['unadapted'][kind]:.3f} to {found['adapted'][kind]:.3f}" for kind in found["unadapted"]
    )
    verdict = "passed" if record["adapted"] else "not passed, so the unadapted encoder is kept"
    return f"The run's own label-free test ({found['measure']}), before to after adaptation: {kinds}: {verdict}."


def _precision_table(results: dict[str, Evaluation], bundle: Bundle) -> Table:
    """AUROC, drift, rank correlation and flipped decisions of each precision, each with its own recipe."""
    base = results["fp32"]
    rows = []
    for precision in PRECISIONS:
        ours = results[precision]
        scores, reference = ([s.score for s in e.images] for e in (ours, base))
        flips = np.mean([a.is_anomalous != b.is_anomalous for a, b in zip(ours.images, base.images, strict=True)])
        rows.append(
            (
                precision,
                f"{ours.auroc:.4f}",
                f"{100 * (ours.auroc - base.auroc):+.2f}",
                f"{metrics.spearman(np.array(scores), np.array(reference)):.5f}",
                f"{flips:.2%}",
                _cosine(bundle, precision),
                f"{ours.detections:.1%}",
                f"{ours.false_alarms:.1%}",
            )
        )
    head = ("precision", "AUROC", "drift, points", "rank correlation", "flipped decisions", "least cosine")
    caption = "Each precision has a recipe fitted through its own graph, in onnxruntime; drift and flips against fp32."
    return Table("Precisions", (*head, "defects found", "false alarms"), tuple(rows), caption)


def _cosine(bundle: Bundle, precision: str) -> str:
    figures = bundle.manifest.parity.get(precision, {})
    return f"{figures['embedding_cosine_min']:.5f}" if "embedding_cosine_min" in figures else "1 (reference)"
