"""The commands of the runtime: fit, score, embed, evaluate, check, bench. Thin: each parses, calls, prints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orinspect_edge_runtime.bench.command import bench
from orinspect_edge_runtime.options import PATH, backend_option, bundle_argument, json_option, threads_option

if TYPE_CHECKING:
    from orinspect_edge_runtime.detector import Detector
    from orinspect_edge_runtime.evaluation import Evaluation
    from orinspect_edge_runtime.explain import Explanation

__all__ = ["bench", "check", "embed", "evaluate", "fit", "score"]
OUTCOME_WORDS = {"accept": "good", "review": "REVIEW", "reject": "ANOMALOUS"}
recipe_option = click.option("--recipe", help="Recipe to use; not needed when the bundle has only one.")


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


@click.command()
@bundle_argument
@click.argument("normal_dir", type=PATH)
@click.option(
    "--recipe", default="default", show_default=True, help="Name of the recipe; one of that name is replaced."
)
@click.option("--scorer", default="patchcore", show_default=True, help="patchcore, padim, knn or mahalanobis.")
@click.option("--precision", default="fp32", show_default=True, help="Precision the recipe is fitted for and run in.")
@click.option(
    "--false-alarm", default=0.01, show_default=True, help="Share of good images allowed above the threshold."
)
@click.option(
    "--groups",
    type=click.IntRange(0, 64),
    default=0,
    show_default=True,
    help="Kinds of good image to tell apart; 0: found by itself.",
)
@click.option(
    "--review-alarm",
    type=float,
    help="Share of good images that a person may have to look at: adds a review band below the threshold.",
)
@click.option(
    "--threshold",
    default="conformal",
    show_default=True,
    help="conformal keeps its promise; tail extrapolates to rates that so few images cannot promise (50 or more).",
)
@click.option("--mask", type=PATH, help="Picture of what to inspect: white is inspected, black is not.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@backend_option
@json_option
def fit(bundle: Path, normal_dir: Path, recipe: str, mask: Path | None, as_json: bool, **options: Any) -> None:
    """Fit a recipe on good images only.

    \b
    Example:  orinspect fit BUNDLE good_images/ --recipe bracket --false-alarm 0.01 --review-alarm 0.05
    Of a dataset with test images (see evaluate) only its training part is taken.
    """
    from orinspect_edge_runtime.bundle import Bundle
    from orinspect_edge_runtime.dataset import training_images
    from orinspect_edge_runtime.fit import FitOptions, fit_recipe
    from orinspect_edge_runtime.preprocess import Skipped, read_frames
    from orinspect_edge_runtime.progress import shares, track
    from orinspect_edge_runtime.recipe import check_name
    from orinspect_edge_runtime.region_mask import read_region

    chosen, opened = FitOptions(**options), Bundle.open(bundle)
    check_name(recipe)
    spec, grid = opened.manifest.preprocess, opened.manifest.encoder.grid
    region = None if mask is None else read_region(mask, spec, grid)
    paths, skipped = training_images(normal_dir), list[Skipped]()
    frames = track(read_frames(paths, opened.manifest.preprocess, skipped), "features", len(paths))
    with shares("recipe") as show:
        fitted = fit_recipe(opened, frames, recipe, chosen, progress=show, mask=region)
    opened.add_recipe(fitted)
    _warn_skipped([s.reason for s in skipped])
    bank = _bank_of(fitted.arrays)
    if as_json:
        hidden = ("arrays", "calibration_scores", "calibration_images", "images", "edits")
        shown = {f.name: getattr(fitted, f.name) for f in dataclasses.fields(fitted) if f.name not in hidden}
        _print_json(shown | bank)
        return
    kinds = " + ".join(str(n) for n in fitted.group_sizes)
    click.echo(f"recipe {fitted.name}: {fitted.scorer} {fitted.precision}, {fitted.good_images} good images ({kinds})")
    if bank:
        radius = " and ".join(f"{value:.2f}" for value in bank["bank_radius"])
        click.echo(f"memory bank of {bank['bank_rows']} patches; covering radius {radius}")
    click.echo(f"threshold {fitted.threshold:.3f}: {fitted.false_alarm_note}")
    if fitted.review_threshold is not None:
        click.echo(
            f"review from {fitted.review_threshold:.3f}: {fitted.review_alarm:.2%} of good images at most are above"
        )
    if region is not None:
        click.echo(f"mask: {region.mean():.0%} of the picture is inspected, {fitted.arrays['inspected'].sum()} patches")
    click.echo(f"fitted on {fitted.backend}")


def _bank_of(arrays: dict[str, Any]) -> dict[str, Any]:
    """Size and covering radii of a recipe's memory bank, empty when it has none."""
    if "bank_radius" not in arrays:
        return {}
    return {"bank_rows": arrays["bank"].shape[1], "bank_radius": arrays["bank_radius"].tolist()}


@click.command()
@bundle_argument
@click.argument("images", type=PATH, nargs=-1, required=True)
@recipe_option
@click.option("--overlay", type=PATH, help="Folder for the images with their heat maps drawn over.")
@click.option("--explain", "explained", is_flag=True, help="Say why: p-value, regions, the nearest good patch.")
@backend_option
@threads_option
@json_option
def score(
    bundle: Path,
    images: tuple[Path, ...],
    recipe: str | None,
    overlay: Path | None,
    explained: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Score images: one line each, with the verdict.

    \b
    Example:  orinspect score BUNDLE new_images/ --overlay heat_maps/ --explain
    """
    from orinspect_edge_runtime.detector import Detector
    from orinspect_edge_runtime.errors import ImageError, InputError
    from orinspect_edge_runtime.explain import explain
    from orinspect_edge_runtime.preprocess import decode_ahead, list_images, read_frame

    paths, failed, rows = list_images(list(images)), 0, []
    with Detector.load(bundle, recipe, **options) as detector:
        _tell_backend(detector)
        for path, frame in decode_ahead(paths, detector.bundle.manifest.preprocess, reduced=True):
            if isinstance(frame, ImageError):
                failed += 1
                click.echo(f"orinspect: {frame}", err=True)
                rows.append({"image": str(path), "error": str(frame)})
                continue
            verdict = detector(frame)
            row = {k: v for k, v in vars(verdict).items() if k not in ("anomaly_map", "embedding")}
            rows.append({"image": str(path), **row, "outcome": verdict.outcome})
            if not as_json:
                word = OUTCOME_WORDS[verdict.outcome]
                click.echo(f"{word:9}  {verdict.score:8.3f}  {path}")
            # A verdict may do with a part of a JPEG's size; what is shown of it is in the picture's own pixels.
            shown = explained or overlay is not None
            whole = read_frame(path, detector.bundle.manifest.preprocess) if shown else frame
            if explained:
                explanation = explain(detector, whole, verdict)
                rows[-1] |= dataclasses.asdict(explanation)
                if not as_json:
                    _tell_explanation(explanation)
            if overlay is not None:
                _save_overlay(overlay, path, len(rows), whole, verdict)
    if as_json:
        _print_json(rows)
    if failed:
        raise InputError(f"{failed} of {len(paths)} images could not be scored; each is named above")


def _tell_explanation(explanation: Explanation) -> None:
    click.echo(f"           p-value {explanation.p_value:.4f}: that share of good images scores as high")
    for region in explanation.regions:
        near = f"; nearest good: {region.nearest.image}" if region.nearest is not None else ""
        if region.nearest is not None and region.nearest.x is not None and region.nearest.y is not None:
            near += f" at {region.nearest.x:.0%}, {region.nearest.y:.0%}"
        click.echo(
            f"           at {region.x}, {region.y}: {region.width} x {region.height} pixels, {region.area:.1%} of the "
            f"picture, peak {region.peak:.3f}{near}"
        )
    if explanation.nearest is not None:
        click.echo(f"           nearest good image: {explanation.nearest.image}")


def _save_overlay(folder: Path, path: Path, number: int, frame: Any, verdict: Any) -> None:
    from orinspect_edge_runtime import durable
    from orinspect_edge_runtime.errors import InputError
    from orinspect_edge_runtime.overlay import draw_overlay
    from orinspect_edge_runtime.picture_file import to_png

    if verdict.anomaly_map is None:
        raise InputError("this recipe's scorer judges the whole image and has no heat map: fit patchcore or padim")
    drawn = draw_overlay(frame.pixels, verdict.anomaly_map, verdict.threshold)
    durable.write_bytes(folder / f"{number:05d}-{path.stem}.png", to_png(drawn))


@click.command()
@bundle_argument
@click.argument("images", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="File to write, .npz or .parquet.")
@click.option("--precision", default="fp32", show_default=True)
@click.option("--engine", default="local", show_default=True, help="local, or ray: processes of a Ray instance.")
@backend_option
@threads_option
def embed(bundle: Path, images: tuple[Path, ...], out: Path, engine: str, **options: Any) -> None:
    """Write the embedding of every image to a file.

    \b
    Example:  orinspect embed BUNDLE images/ --out embeddings.npz
    The file holds `embedding` float32 [N, E] and `image`, the N paths. A job that was killed goes on where it was when
    the same command is given again; memory does not grow with the number of images, but for the list of their names.
    """
    from orinspect_edge_runtime.embed import EmbedJob, embed_images
    from orinspect_edge_runtime.preprocess import list_images
    from orinspect_edge_runtime.progress import counted

    job = EmbedJob(bundle, list_images(list(images)), out, **options)
    with counted("embed", len(job.images)) as show:
        done = embed_images(job, show, engine)
    if done.resumed:
        click.echo(f"{done.resumed} of the images had been done by an earlier run of this job", err=True)
    _warn_skipped(list(done.skipped))
    click.echo(f"{out}: {done.count} embeddings, {job.precision}")


@click.command()
@bundle_argument
@click.argument("dataset", type=PATH)
@recipe_option
@click.option("--report", type=PATH, help="Folder for report.html and evaluation.json.")
@backend_option
@threads_option
@json_option
def evaluate(
    bundle: Path, dataset: Path, recipe: str | None, report: Path | None, as_json: bool, **options: Any
) -> None:
    """Score labelled images and say how well the recipe tells them apart.

    \b
    Example:  orinspect evaluate BUNDLE DATASET --report report/
    DATASET is one category of MVTec AD, MVTec LOCO, MVTec AD 2 or VisA as it lies on disk, or holds good/ and one
    folder a kind of defect. Masks (ground_truth/KIND/NAME_mask.png) add pixel AUROC and AUPRO.
    """
    from orinspect_edge_runtime import durable
    from orinspect_edge_runtime.dataset import read_dataset
    from orinspect_edge_runtime.detector import Detector
    from orinspect_edge_runtime.evaluation import evaluate as run_evaluation
    from orinspect_edge_runtime.progress import shares
    from orinspect_edge_runtime.report import evaluation_page, write_report

    images = read_dataset(dataset)
    with Detector.load(bundle, recipe, throughput=True, **options) as detector:
        _tell_backend(detector)
        with shares("evaluate") as show:
            result = run_evaluation(detector, images, progress=show)
        if report is not None:
            content = json.dumps(result.to_json(), indent=2).encode()
            durable.write_bytes(report / "evaluation.json", content)
            write_report(report / "report.html", evaluation_page(result, detector, str(dataset)))
    _warn_skipped(list(result.skipped))
    _print_evaluation(result, as_json)


def _print_evaluation(result: Evaluation, as_json: bool) -> None:
    if as_json:
        _print_json(result.to_json())
        return
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


@click.command()
@bundle_argument
@json_option
def check(bundle: Path, as_json: bool) -> None:
    """Verify every byte of a bundle and replay its golden inputs through every graph and every engine.

    \b
    Example:  orinspect check BUNDLE
    An engine's passport is compared with this device before the engine is opened.
    """
    from orinspect_edge_runtime.bundle import Bundle
    from orinspect_edge_runtime.engine_check import check_engine
    from orinspect_edge_runtime.errors import BundleError, CheckFailed
    from orinspect_edge_runtime.golden import read_golden, replay
    from orinspect_edge_runtime.progress import track

    try:
        opened = Bundle.open(bundle)
        for name in opened.manifest.recipes:
            opened.recipe(name)
    except BundleError as error:
        # A path that is no bundle at all is wrong usage; a bundle with a flaw is a check whose answer is no.
        if not (bundle / "manifest.json").exists():
            raise
        raise CheckFailed(str(error)) from error
    golden, graphs = read_golden(opened), opened.manifest.graphs
    replays = [replay(opened, spec, golden) for spec in track(graphs, "golden replay", len(graphs))]
    engines = [found for spec in graphs if (found := check_engine(opened, spec, golden)) is not None]
    if as_json:
        result = {"replays": list(map(vars, replays)), "engines": list(map(vars, engines))}
        _print_json({"bundle": str(bundle), "files": len(opened.manifest.files)} | result)
    else:
        click.echo(
            f"{len(opened.manifest.files)} files as the manifest promises, {len(opened.manifest.recipes)} recipes"
        )
        for r in replays:
            word = "ok    " if r.passed else "FAILED"
            click.echo(f"{word} {r.precision} {r.head}: cosine {r.least_cosine:.5f}, rank {r.rank_correlation:.4f}")
        for e in engines:
            click.echo(
                f"{'FAILED' if e.problem else 'ok    '} engine {e.precision} {e.head}: {e.problem or 'fit to run'}"
            )
    bad = [f"{r.precision} {r.head}" for r in replays if not r.passed]
    if bad:
        raise CheckFailed(f"{bundle}: {', '.join(bad)} does not reproduce golden; do not use it, export again")
    unfit = [f"{e.precision} {e.head}" for e in engines if e.problem]
    if unfit:
        raise CheckFailed(f"{bundle}: the engine {', '.join(unfit)} must not run here; see above what differs")


def _tell_backend(detector: Detector) -> None:
    """On stderr: what runs, and a warning when the recipe was fitted on something else."""
    click.echo(f"runs {detector.description}", err=True)
    if detector.fitted_elsewhere is not None:
        click.echo(f"warning: {detector.fitted_elsewhere}", err=True)


def _warn_skipped(reasons: list[str]) -> None:
    for reason in reasons[:5]:
        click.echo(f"skipped: {reason}", err=True)
    if len(reasons) > 5:
        click.echo(f"skipped: {len(reasons) - 5} more", err=True)
