"""orinspect fit: a recipe out of good images, and what it promises."""

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
)

if TYPE_CHECKING:
    from orinspect_edge_runtime.fit_options import FitOptions
    from orinspect_edge_runtime.manifest import Manifest
    from orinspect_edge_runtime.recipe import Recipe

# Fields of a recipe that --json leaves out, or shows in another form.
HIDDEN = frozenset(
    (
        "arrays",
        "calibration_scores",
        "calibration_images",
        "images",
        "edits",
        "defects",
        "defect_scores",
        "stakes",
        "tiles",
    )
)


@click.command()
@bundle_argument
@click.argument("normal_dir", type=PATH)
@click.option(
    "--recipe", default="default", show_default=True, help="Name of the recipe; one of that name is replaced."
)
@click.option(
    "--scorer",
    default="patchcore",
    show_default=True,
    help="patchcore, padim, padim_mahalanobis, student, knn or mahalanobis.",
)
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
@click.option(
    "--align",
    type=float,
    metavar="DEGREES",
    help="Bring each part to the same place first: shifts, and turns of up to so many degrees either way.",
)
@click.option(
    "--rank",
    type=click.IntRange(1),
    help="Of padim's covariances, also of padim_mahalanobis: a smaller recipe, read faster. Without it they are full.",
)
@click.option(
    "--likelihood-ratio",
    is_flag=True,
    help="Of padim, also of padim_mahalanobis: weigh differences by how much drawn defects change along them.",
)
@click.option(
    "--neighbours",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Of patchcore: rows of the bank whose mean distance a patch has.",
)
@click.option(
    "--reweight",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="ROWS",
    help="Of patchcore: rows around the nearest one that weigh the score, as in its paper (9 are usual); 0: none.",
)
@click.option(
    "--distance", default="l2", show_default=True, help="Of patchcore: l2, or cosine, which wants --projection none."
)
@click.option(
    "--projection",
    default="whitened",
    show_default=True,
    help="Of patchcore: whitened, or none for patches as the encoder gives them.",
)
@click.option(
    "--components",
    type=click.IntRange(1),
    help="Of patchcore: directions of the largest variance to keep of a patch. Without it all.",
)
@click.option(
    "--in-memory",
    type=click.IntRange(2),
    help="Good images to fit on at once, drawn evenly; the others enter the memory bank one by one. Without it all.",
)
@click.option("--mask", type=PATH, help="Picture of what to inspect: white is inspected, black is not.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@backend_option
@json_option
def fit(
    bundle: Path,
    normal_dir: Path,
    recipe: str,
    mask: Path | None,
    in_memory: int | None,
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
              orinspect fit BUNDLE good_images/ --recipe board --tiles 3x2
              orinspect fit BUNDLE good_images/ --recipe gasket --align 10
              orinspect fit BUNDLE good_images/ --recipe cell --scorer padim --likelihood-ratio
              orinspect fit BUNDLE good_images/ --recipe leather --projection none --distance cosine
              orinspect fit BUNDLE good_images/ --defects scratched/ --cost-missed 200 --defect-rate 0.005
    Of a dataset with test images (see evaluate) only its training part is taken. Defects, if there are some, only say where
    the threshold lies: nothing is fitted on them.
    """
    from orinspect_edge_runtime.bundle import Bundle
    from orinspect_edge_runtime.dataset import defect_images, evenly, training_images
    from orinspect_edge_runtime.fit import fit_recipe
    from orinspect_edge_runtime.fit_options import FitOptions
    from orinspect_edge_runtime.preprocess import Skipped, read_frames
    from orinspect_edge_runtime.progress import shares, track
    from orinspect_edge_runtime.recipe import check_name
    from orinspect_edge_runtime.region_mask import read_region

    stakes = stakes_of(defects is not None, cost_missed, cost_false_alarm, defect_rate)
    chosen, opened = FitOptions(**options), Bundle.open(bundle)
    _check_together(chosen, stakes is not None, in_memory is not None)
    check_name(recipe)
    spec, grid = opened.manifest.preprocess, opened.manifest.encoder.grid
    region = None if mask is None else read_region(mask, spec, grid)
    paths = training_images(normal_dir)
    bad = [] if defects is None else defect_images(defects, paths)
    at_once, later = evenly(paths, in_memory or len(paths))
    skipped: tuple[list[Skipped], ...] = ([], [], [])
    frames = track(read_frames(at_once, spec, skipped[0]), "features", len(at_once))
    more = track(read_frames(later, spec, skipped[1]), "bank", len(later)) if later else ()
    bad_frames = read_frames(bad, spec, skipped[2])
    with shares("recipe") as show:
        fitted = fit_recipe(
            opened, frames, recipe, chosen, progress=show, mask=region, defects=bad_frames, stakes=stakes, more=more
        )
    opened.add_recipe(fitted)
    warn_skipped([one.reason for part in skipped for one in part])
    if as_json:
        click.echo(json.dumps(_shown(fitted), indent=2))
    else:
        _tell(fitted, opened.manifest)


def _check_together(chosen: FitOptions, by_defects: bool, in_parts: bool) -> None:
    """Raises InputError for options that contradict each other."""
    from orinspect_edge_runtime.editors import EDITORS
    from orinspect_edge_runtime.errors import InputError

    if by_defects and (both := [name for name in ("false-alarm", "threshold") if is_given(name.replace("-", "_"))]):
        raise InputError(f"--{both[0]} and --defects both say where the threshold lies: give one of them")
    if is_given("tile_overlap") and not chosen.tiles:
        raise InputError("--tile-overlap is the overlap of --tiles: give both, or none")
    if in_parts and chosen.scorer not in EDITORS:
        raise InputError(f"--in-memory: {chosen.scorer} has to see all images at once; use {' or '.join(EDITORS)}")
    if in_parts:
        chosen.check_growing()


def _tell(fitted: Recipe, manifest: Manifest) -> None:
    from orinspect_edge_runtime.scorers.patchcore import told_options

    kinds = " + ".join(str(n) for n in fitted.group_sizes)
    click.echo(f"recipe {fitted.name}: {fitted.scorer} {fitted.precision}, {fitted.good_images} good images ({kinds})")
    if bank := _bank_of(fitted.arrays):
        radius = " and ".join(f"{value:.2f}" for value in bank["bank_radius"])
        click.echo(f"memory bank of {bank['bank_rows']} patches; covering radius {radius}")
        if told := told_options(fitted.arrays):
            click.echo(f"distances: {told}")
    if (factors := fitted.arrays.get("patch_factors")) is not None:
        click.echo(f"covariances {_gaussians_of(fitted)}: {factors.nbytes / 1e6:.1f} MB")
    if later := fitted.good_images - len(fitted.calibration_scores):
        calibrating = len(fitted.calibration_scores)
        if fitted.scorer == "student":
            click.echo(f"the student has learnt from {later} images; the threshold rests on the {calibrating} others")
        else:
            click.echo(f"fitted on {calibrating} images; what it lacked of {later} others was added")
    click.echo(f"threshold {fitted.threshold:.3f}: {fitted.false_alarm_note}")
    if (review := fitted.review_threshold) is not None:
        if review < fitted.threshold:
            click.echo(f"review from {review:.3f}: {fitted.review_alarm:.2%} of good images at most are above")
        else:
            click.echo(f"no review band: its threshold {review:.3f} is not below that of alarms")
    if (mask := fitted.arrays.get("mask")) is not None:
        click.echo(f"mask: {mask.mean():.0%} of the picture is inspected, {fitted.arrays['inspected'].sum()} patches")
    if fitted.tiles is not None:
        _tell_tiles(fitted, manifest)
    if fitted.align is not None:
        click.echo(f"align: shifts, and turns of up to {fitted.align.degrees:g} degrees, are undone")
    click.echo(f"fitted on {fitted.backend}")


def _gaussians_of(fitted: Recipe) -> str:
    from orinspect_edge_runtime.scorers.padim import options_of

    dim, options = fitted.arrays["patch_factors"].shape[2], options_of(fitted.arrays)
    told = f"of {dim} dimensions, full" if options["rank"] is None else f"of rank {options['rank']} in {dim} dimensions"
    return f"{told}, likelihood ratio" if options["likelihood_ratio"] else told


def _tell_tiles(fitted: Recipe, manifest: Manifest) -> None:
    from orinspect_edge_runtime.tiling import view_of

    seen = view_of(fitted.tiles, manifest).spec
    click.echo(f"tiles: {fitted.tiles}, which see the picture at {seen.width}x{seen.height} pixels")


def _shown(fitted: Recipe) -> dict[str, Any]:
    """The recipe for --json."""
    from orinspect_edge_runtime.scorers import padim, patchcore

    plain = {f.name: getattr(fitted, f.name) for f in dataclasses.fields(fitted) if f.name not in HIDDEN}
    chosen = padim.options_of(fitted.arrays) | patchcore.options_of(fitted.arrays)
    return plain | chosen | _bank_of(fitted.arrays) | _defects_of(fitted) | _parts_of(fitted)


def _parts_of(fitted: Recipe) -> dict[str, Any]:
    return {name: part and vars(part) for name, part in (("tiles", fitted.tiles), ("align", fitted.align))}


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
