"""orinspect evaluate: how well a recipe tells labelled images apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orinspect_edge_runtime.messages import tell_backend, tell_resumed, warn_skipped
from orinspect_edge_runtime.options import (
    PATH,
    backend_option,
    bundle_argument,
    engine_option,
    json_option,
    recipe_option,
    threads_option,
)

if TYPE_CHECKING:
    from orinspect_edge_runtime.evaluation import Evaluation


@click.command()
@bundle_argument
@click.argument("dataset", type=PATH)
@recipe_option
@click.option("--report", type=PATH, help="Folder for report.html and evaluation.json.")
@click.option("--scores", type=PATH, help="File for a row an image, .parquet, .csv or .jsonl; JSON then has none.")
@engine_option
@backend_option
@threads_option
@json_option
def evaluate(
    bundle: Path,
    dataset: Path,
    recipe: str | None,
    report: Path | None,
    scores: Path | None,
    engine: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Score labelled images and say how well the recipe tells them apart.

    \b
    Example:  orinspect evaluate BUNDLE DATASET --report report/
              orinspect evaluate BUNDLE DATASET --scores scores.parquet --engine ray
    DATASET is one category of MVTec AD, MVTec LOCO, MVTec AD 2 or VisA as it lies on disk, or holds good/ and one
    folder a kind of defect. Masks (ground_truth/KIND/NAME_mask.png) add pixel AUROC and AUPRO.

    A job that was killed goes on where it was when the same command is given again. Until it ends its parts lie beside
    --scores, else in --report, else in the temporary folder: 4 bytes a pixel of the model's size for each mask, and less
    than that for the rest.
    """
    from orinspect_edge_runtime import durable
    from orinspect_edge_runtime.dataset import read_dataset
    from orinspect_edge_runtime.detector import Detector
    from orinspect_edge_runtime.evaluate import EvaluateJob, evaluating
    from orinspect_edge_runtime.parts import beside
    from orinspect_edge_runtime.progress import counted
    from orinspect_edge_runtime.report import evaluation_page, need_extra, write_report
    from orinspect_edge_runtime.score_file import need_writer, write_scores

    out = scores or (report and report / "evaluation.json")
    if report is not None:
        need_extra()
    if scores is not None:
        need_writer(scores)
    images = read_dataset(dataset)
    with Detector.load(bundle, recipe, throughput=True, **options) as detector:
        tell_backend(detector)
        job, folder = EvaluateJob(detector, images, **options), out and beside(out)
        with counted("evaluate", len(images)) as show, evaluating(job, folder, show, engine) as done:
            result = done.evaluation
            values = result.to_json(rows=scores is None)
            if scores is not None:
                write_scores(scores, result.images, detector.recipe.calibration_scores)
            if report is not None:
                durable.write_bytes(report / "evaluation.json", json.dumps(values, indent=2).encode())
                write_report(report / "report.html", evaluation_page(result, detector, str(dataset)))
    tell_resumed(done.resumed)
    warn_skipped(list(result.skipped))
    if as_json:
        click.echo(json.dumps(values, indent=2))
    else:
        _print_evaluation(result)


def _print_evaluation(result: Evaluation) -> None:
    low, high = result.auroc_interval
    click.echo(f"{result.good_images} good, {result.defective_images} defective; {result.scorer} {result.precision}")
    click.echo(f"image AUROC {result.auroc:.4f} (95 % interval {low:.4f} to {high:.4f})")
    click.echo(f"average precision {result.average_precision:.4f}, best F1 {result.f1_max:.4f}")
    click.echo(f"false alarms when 95 % of the defective images are found {result.fpr_at_95_tpr:.2%}")
    if (pixels := result.localisation) is not None:
        click.echo(
            f"pixel AUROC {pixels.pixel_auroc:.4f}, AUPRO {pixels.aupro_30:.4f} (0.3), {pixels.aupro_05:.4f} (0.05); "
            f"{pixels.masked_images} images with a mask"
        )
    click.echo(f"threshold {result.threshold:.3f}: {result.detections:.1%} of the defective images are above it")
    click.echo(f"and {result.false_alarms:.2%} of the good ones (promised {result.false_alarm_promised:.2%})")
    if result.review is not None:
        click.echo(
            f"review from {result.review.threshold:.3f}: {result.review.good:.2%} of the good and "
            f"{result.review.defective:.1%} of the defective images are between the two"
        )
    if len(result.auroc_by_kind) > 1:
        for kind, auroc in result.auroc_by_kind.items():
            click.echo(f"  {kind}: image AUROC {auroc:.4f}, {result.detections_by_kind[kind]:.1%} found")
