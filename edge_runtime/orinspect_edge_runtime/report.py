"""One self-contained HTML page out of what the commands measured: no script, no network, prints well."""

from __future__ import annotations

import csv
import dataclasses
import io
from dataclasses import dataclass, field
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from orinspect_edge_runtime import charts, durable, metrics, overlay
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.evaluation import Evaluation
from orinspect_edge_runtime.explain import Explanation, explain
from orinspect_edge_runtime.preprocess import PreprocessSpec, read_frame
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.scored_images import ScoredImage
from orinspect_edge_runtime.sheets import Sheet, group_sheets

WORST_SHOWN = 12
THUMBNAIL_WIDTH = 220
METRIC_NAMES = {
    "average_precision": "average precision",
    "f1_max": "best F1",
    "fpr_at_95_tpr": "false-positive rate at 95 % true positives",
}
TRAINING_CURVES = (("loss", "loss"), ("embedding_std", "embedding std"), ("effective_rank", "effective rank"))


@dataclass(frozen=True)
class Picture:
    """An image beside its heat map; both are data URIs of PNG files."""

    image: str
    heat_map: str
    caption: str
    is_defective: bool
    is_anomalous: bool


@dataclass(frozen=True)
class Table:
    """A table with a caption that states the conditions of its numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


@dataclass(frozen=True)
class Page:
    """What the report shows, in order: facts, figures (title, SVG), pictures, sheets, tables, notes."""

    title: str
    lead: str
    facts: tuple[tuple[str, str], ...] = ()
    figures: tuple[tuple[str, str], ...] = ()
    pictures: tuple[Picture, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    footer: str = ""
    commands: tuple[str, ...] = field(default=())


def need_extra() -> None:
    """Raises ModuleNotFoundError, told as a missing extra, now and not after what the report is about."""
    for package in ("jinja2", "matplotlib"):
        import_module(package)


def write_report(path: Path, page: Page) -> None:
    """Render the page and publish it as `path`. Needs the extra `report`."""
    durable.write_bytes(path, render(page))


def render(page: Page) -> bytes:
    """The page as one HTML file. Needs the extra `report`."""
    import jinja2

    template = files("orinspect_edge_runtime").joinpath("report.html.j2").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    # A file name that is no valid UTF-8 reaches us with lone surrogates; it is shown escaped.
    return environment.from_string(template).render(page=page).encode(errors="backslashreplace")


def evaluation_facts(evaluation: Evaluation) -> tuple[tuple[str, str], ...]:
    """The headline figures, as (value, what it is)."""
    low, high = evaluation.auroc_interval
    review = evaluation.review
    band = (
        ()
        if review is None
        else ((f"{review.good:.1%}, {review.defective:.0%}", "of the good and of the defective go to review"),)
    )
    return (
        (f"{evaluation.auroc:.3f}", f"image AUROC (95 % interval {low:.3f} to {high:.3f})"),
        (f"{evaluation.detections:.0%}", "of the defective images are above the threshold"),
        (f"{evaluation.false_alarms:.1%}", f"of the good images too (promised {evaluation.false_alarm_promised:.1%})"),
        *band,
        (f"{evaluation.good_images} + {evaluation.defective_images}", "good and defective images, none seen before"),
    )


def evaluation_figures(evaluation: Evaluation) -> tuple[tuple[str, str], ...]:
    """ROC curve and score histogram."""
    labels, scores = evaluation.images.is_defective, evaluation.images.score
    fpr, tpr = metrics.roc_curve(labels, scores)[:2]
    return (
        ("Score histogram", charts.score_histogram(scores[~labels], scores[labels], evaluation.threshold)),
        ("ROC curve", charts.roc_chart({f"{evaluation.precision} {evaluation.auroc:.3f}": (fpr, tpr)})),
    )


def training_figures(run: Path) -> tuple[tuple[str, str], ...]:
    """Curves of a RUN's metrics.csv. Raises InputError when it is missing or damaged."""
    try:
        rows = list(csv.DictReader(io.StringIO((run / "metrics.csv").read_text("utf-8"))))
        if not rows:
            raise ValueError("no rows")
        steps = [float(row["step"]) for row in rows]
        return tuple(
            (f"Pretraining: {label}", charts.line_chart(steps, {label: [float(r[name]) for r in rows]}, "step", label))
            for name, label in TRAINING_CURVES
        )
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{run}/metrics.csv: missing or damaged ({error})") from error


def worst_pictures(evaluation: Evaluation, detector: Detector, count: int = WORST_SHOWN) -> tuple[Picture, ...]:
    """The `count` highest scores with their heat maps."""
    ranked = np.argsort(-evaluation.images.score, kind="stable")[:count]
    return tuple(_picture(evaluation.images[number], detector) for number in ranked.tolist())


def _picture(scored: ScoredImage, detector: Detector) -> Picture:
    frame = read_frame(Path(scored.image), detector.view.spec)
    verdict = detector(frame)
    anomaly_map = verdict.anomaly_map
    drawn = frame.pixels
    if anomaly_map is not None:
        drawn = overlay.draw_overlay(frame.pixels, anomaly_map, detector.recipe.threshold)
    why = _reason(explain(detector, frame, verdict))
    return Picture(
        image=overlay.thumbnail_uri(frame.pixels, THUMBNAIL_WIDTH),
        heat_map=overlay.thumbnail_uri(drawn, THUMBNAIL_WIDTH),
        caption=" · ".join((Path(scored.image).stem, scored.kind, f"score {scored.score:.1f}", *why)),
        is_defective=scored.is_defective,
        is_anomalous=scored.is_anomalous,
    )


def _reason(why: Explanation) -> tuple[str, ...]:
    """p-value, places and the nearest good image in a few words."""
    words = [f"p-value {why.p_value:.3f}"]
    if why.regions:
        places = "one place" if len(why.regions) == 1 else f"{len(why.regions)} places"
        words.append(f"{sum(region.area for region in why.regions):.1%} of the picture, {places}")
    nearest = why.regions[0].nearest if why.regions else why.nearest
    if nearest is not None:
        words.append(f"nearest good {Path(nearest.image).name}")
    return tuple(words)


def evaluation_page(evaluation: Evaluation, detector: Detector, dataset: str) -> Page:
    """The page of `orinspect evaluate --report`."""
    return Page(
        title=f"Evaluation of recipe {evaluation.recipe}",
        lead=f"{evaluation.scorer}, {detector.description}, on {dataset}.",
        facts=evaluation_facts(evaluation),
        figures=evaluation_figures(evaluation),
        pictures=worst_pictures(evaluation, detector),
        sheets=group_sheets(detector.recipe, detector.bundle.manifest.preprocess),
        tables=(metrics_table(evaluation), kinds_table(evaluation)),
        notes=(detector.recipe.false_alarm_note, *evaluation.skipped),
        footer=detector.recipe.created_with,
    )


def groups_page(recipe: Recipe, spec: PreprocessSpec) -> Page:
    """The page of `orinspect recipe groups --sheet`."""
    sheets = group_sheets(recipe, spec)
    missing = sum(sheet.missing for sheet in sheets)
    notes = (f"{missing} of the pictures to be shown cannot be read here",) if missing else ()
    return Page(
        title=f"Kinds of good image in recipe {recipe.name}",
        lead="Each kind is judged by its own statistics. If two of them are the same to you, or one is two, fit again with "
        "--groups N; a defect that lies among them is taken out with  orinspect recipe forget.",
        sheets=sheets,
        notes=notes,
        footer=recipe.created_with,
    )


def metrics_table(evaluation: Evaluation) -> Table:
    """Every metric with its interval; pixel metrics if there were masks."""
    values = dataclasses.asdict(evaluation)
    rows = [("image AUROC", f"{evaluation.auroc:.4f}", "{:.4f} to {:.4f}".format(*evaluation.auroc_interval))]
    for name, (low, high) in evaluation.intervals.items():
        rows.append((METRIC_NAMES[name], f"{values[name]:.4f}", f"{low:.4f} to {high:.4f}"))
    if (pixels := evaluation.localisation) is not None:
        rows.append(("pixel AUROC", f"{pixels.pixel_auroc:.4f}", ""))
        rows.append(("AUPRO up to 0.3 / 0.05", f"{pixels.aupro_30:.4f} / {pixels.aupro_05:.4f}", ""))
    caption = "Best F1 is chosen on these very images: an upper bound. Pixel metrics are at the model's size."
    return Table("Metrics", ("metric", "value", "95 % bootstrap interval"), tuple(rows), caption)


def kinds_table(evaluation: Evaluation) -> Table:
    """Figures of each kind of defect against all good images."""
    regions = {} if evaluation.localisation is None else evaluation.localisation.aupro_30_by_kind
    counts = {kind: len(rows) for kind, rows in evaluation.images.defects().items()}
    rows = tuple(
        (
            kind,
            str(counts[kind]),
            f"{auroc:.4f}",
            f"{evaluation.detections_by_kind[kind]:.1%}",
            f"{regions[kind]:.4f}" if kind in regions else "-",
        )
        for kind, auroc in evaluation.auroc_by_kind.items()
    )
    return Table("Kinds of defect", ("kind", "images", "image AUROC", "above the threshold", "AUPRO (0.3)"), rows)


def latency_table(bench: dict[str, Any]) -> Table:
    """The latency table of a bench result; its caption holds the conditions."""
    c = bench["conditions"]
    rows = tuple(
        (
            row["precision"],
            f"{row['p50_ms']:.2f}",
            f"{row['p90_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['frames_per_second']:.0f}",
            "-" if row["ratio_p50"] is None else f"{row['ratio_p50']:.2f}x",
            row["runs_on"],
        )
        for row in bench["latencies"]
    )
    caption = (
        f"{bench['scenario']}, {bench['measures']}. {bench['encoder']}, {bench['model_size'][1]}x{bench['model_size'][0]} "
        f"pixels, head {bench['head']}, {bench['bank_rows']} bank rows, {bench['latencies'][0]['runs']} runs each in "
        f"alternating rounds. {c['machine']}, {c['threads']} threads, load {c['load_before']} before, Python {c['python']}, "
        f"{', '.join(f'{k} {v}' for k, v in c['versions'].items())}, {c['measured_at']}. "
        "Not a Jetson figure unless the machine named here is one."
    )
    head = ("precision", "p50 ms", "p90 ms", "p99 ms", "frames/s", "speed against fp32", "runs on")
    return Table("Latency", head, rows, caption)
