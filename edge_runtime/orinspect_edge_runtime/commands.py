"""The commands fit, embed and check; the longer ones have files of their own. Thin: each parses, calls, prints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orinspect_edge_runtime.messages import warn_skipped
from orinspect_edge_runtime.options import (
    PATH,
    backend_option,
    bundle_argument,
    defects_options,
    is_given,
    json_option,
    stakes_of,
    threads_option,
)

if TYPE_CHECKING:
    from orinspect_edge_runtime.recipe import Recipe


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
@defects_options
@click.option(
    "--tiles", default="", help="See the picture in columns x rows of tiles of the model's size, for example 3x2."
)
@click.option("--tile-overlap", default=0.25, show_default=True, help="Share of a tile that neighbours have in common.")
@click.option("--mask", type=PATH, help="Picture of what to inspect: white is inspected, black is not.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@backend_option
@json_option
def fit(
    bundle: Path,
    normal_dir: Path,
    recipe: str,
    mask: Path | None,
    defects: Path | None,
    cost_missed: float | None,
    cost_false_alarm: float,
    defect_rate: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Fit a recipe on good images only.

    \b
    Examples: orinspect fit BUNDLE good_images/ --recipe bracket --false-alarm 0.01 --review-alarm 0.05
              orinspect fit BUNDLE good_images/ --defects scratched/ --cost-missed 200 --defect-rate 0.005
    Of a dataset with test images (see evaluate) only its training part is taken. Defects, if there are some, only say where
    the threshold lies: nothing is fitted on them.
    """
    from orinspect_edge_runtime.bundle import Bundle
    from orinspect_edge_runtime.dataset import defect_images, training_images
    from orinspect_edge_runtime.errors import InputError
    from orinspect_edge_runtime.fit import FitOptions, fit_recipe
    from orinspect_edge_runtime.preprocess import Skipped, read_frames
    from orinspect_edge_runtime.progress import shares, track
    from orinspect_edge_runtime.recipe import check_name
    from orinspect_edge_runtime.region_mask import read_region
    from orinspect_edge_runtime.tiling import view_of

    stakes = stakes_of(defects is not None, cost_missed, cost_false_alarm, defect_rate)
    if stakes is not None and (both := [name for name in ("false_alarm", "threshold") if is_given(name)]):
        raise InputError(
            f"--{both[0].replace('_', '-')} and --defects both say where the threshold lies: give one of them"
        )
    chosen, opened = FitOptions(**options), Bundle.open(bundle)
    check_name(recipe)
    spec, grid = opened.manifest.preprocess, opened.manifest.encoder.grid
    region = None if mask is None else read_region(mask, spec, grid)
    paths, skipped, bad_skipped = training_images(normal_dir), list[Skipped](), list[Skipped]()
    bad = [] if defects is None else defect_images(defects, paths)
    frames = track(read_frames(paths, spec, skipped), "features", len(paths))
    bad_frames = read_frames(bad, spec, bad_skipped)
    with shares("recipe") as show:
        fitted = fit_recipe(
            opened, frames, recipe, chosen, progress=show, mask=region, defects=bad_frames, stakes=stakes
        )
    opened.add_recipe(fitted)
    warn_skipped([s.reason for s in skipped + bad_skipped])
    bank = _bank_of(fitted.arrays)
    if as_json:
        arrays = ("arrays", "calibration_scores", "calibration_images", "defect_scores")
        hidden = (*arrays, "images", "edits", "defects", "stakes", "tiles")
        shown = {f.name: getattr(fitted, f.name) for f in dataclasses.fields(fitted) if f.name not in hidden}
        _print_json(shown | bank | _defects_of(fitted) | {"tiles": fitted.tiles and vars(fitted.tiles)})
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
    if fitted.tiles is not None:
        seen = view_of(fitted.tiles, opened.manifest).spec
        click.echo(f"tiles: {fitted.tiles}, which see the picture at {seen.width}x{seen.height} pixels")
    click.echo(f"fitted on {fitted.backend}")


def _bank_of(arrays: dict[str, Any]) -> dict[str, Any]:
    """Size and covering radii of a recipe's memory bank, empty when it has none."""
    if "bank_radius" not in arrays:
        return {}
    return {"bank_rows": arrays["bank"].shape[1], "bank_radius": arrays["bank_radius"].tolist()}


def _defects_of(fitted: Recipe) -> dict[str, Any]:
    """The defects that a threshold was found by, with their scores, and what is expected of it; empty without any."""
    from orinspect_edge_runtime.recipe_threshold import expected

    if fitted.stakes is None:
        return {}
    scores = dict(zip(fitted.defects, fitted.defect_scores.tolist(), strict=True))
    figures = {name: value for name, value in vars(expected(fitted)).items() if name not in ("value", "note")}
    return {"stakes": vars(fitted.stakes), "defects": scores, "expected": figures}


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
    warn_skipped(list(done.skipped))
    click.echo(f"{out}: {done.count} embeddings, {job.precision}")


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
