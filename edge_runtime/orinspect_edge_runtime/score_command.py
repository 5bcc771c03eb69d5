"""orinspect score: the verdict on each image, and why."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orinspect_edge_runtime.messages import tell_backend
from orinspect_edge_runtime.options import (
    PATH,
    backend_option,
    bundle_argument,
    json_option,
    recipe_option,
    threads_option,
)

if TYPE_CHECKING:
    from orinspect_edge_runtime.explain import Explanation

OUTCOME_WORDS = {"accept": "good", "review": "REVIEW", "reject": "ANOMALOUS"}


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
    from orinspect_edge_runtime.preprocess import decode_ahead, list_images

    paths, failed, rows = list_images(list(images)), 0, list[dict[str, Any]]()
    with Detector.load(bundle, recipe, **options) as detector:
        tell_backend(detector)
        # A verdict may do with a part of a JPEG's size; what is shown of it is in the picture's own pixels.
        reduced = not explained and overlay is None
        for path, frame in decode_ahead(paths, detector.view.spec, reduced=reduced):
            if isinstance(frame, ImageError):
                failed += 1
                click.echo(f"orinspect: {frame}", err=True)
                rows.append({"image": str(path), "error": str(frame)})
                continue
            verdict = detector(frame)
            row = {k: v for k, v in vars(verdict).items() if k not in ("anomaly_map", "embedding", "pose")}
            rows.append({"image": str(path), **row, "outcome": verdict.outcome})
            if verdict.pose is not None:
                rows[-1]["pose"] = vars(verdict.pose)
            if not as_json:
                word = OUTCOME_WORDS[verdict.outcome]
                click.echo(f"{word:9}  {verdict.score:8.3f}  {path}")
            if explained:
                explanation = explain(detector, frame, verdict)
                rows[-1] |= dataclasses.asdict(explanation)
                if not as_json:
                    _tell_explanation(explanation)
            if overlay is not None:
                _save_overlay(overlay, path, len(rows), frame, verdict)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
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
        raise InputError(
            "this recipe's scorer judges the whole image and has no heat map: fit patchcore, padim or student"
        )
    drawn = draw_overlay(frame.pixels, verdict.anomaly_map, verdict.threshold)
    durable.write_bytes(folder / f"{number:05d}-{path.stem}.png", to_png(drawn))
