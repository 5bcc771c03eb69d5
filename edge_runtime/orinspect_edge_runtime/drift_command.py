"""orinspect drift: do these pictures still come from where the recipe's good images came from?"""

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
    json_option,
    recipe_option,
    threads_option,
)

if TYPE_CHECKING:
    from orinspect_edge_runtime.detector import Detector
    from orinspect_edge_runtime.drift import DriftMonitor


@click.command()
@bundle_argument
@click.argument("images", type=PATH, nargs=-1, required=True)
@recipe_option
@backend_option
@threads_option
@json_option
def drift(bundle: Path, images: tuple[Path, ...], recipe: str | None, as_json: bool, **options: Any) -> None:
    """Tell whether images still look like the good ones that a recipe was fitted on.

    \b
    Example:  orinspect drift BUNDLE today/
    The images are taken in the order of their names, as a line would deliver them; they must not be those the recipe
    was fitted on, which score too low. A few defective ones among them do no harm. Exit code 1 when there is an alarm:
    the promise of few false alarms is then void.
    """
    from orinspect_edge_runtime.detector import Detector
    from orinspect_edge_runtime.drift import DriftMonitor
    from orinspect_edge_runtime.errors import CheckFailed, InputError
    from orinspect_edge_runtime.preprocess import list_images

    paths = list_images(list(images))
    with Detector.load(bundle, recipe, throughput=True, **options) as detector:
        monitor = DriftMonitor(detector.recipe, detector.view.spec)
        if not monitor.parts:
            raise InputError(
                f"recipe {detector.recipe.name!r} has no drift reference: fit it again on 20 images or more"
            )
        seen, skipped = _watch(detector, monitor, paths)
    state = monitor.state
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(state) | {"skipped": skipped}, indent=2))
    else:
        shown = ", ".join(f"{name} {level:.2f}" for name, level in state.levels.items())
        click.echo(f"{state.images} images; at the end, in shares of the alarm limit: {shown}")
    if state.alarm:
        raise CheckFailed(
            f"drift, seen at image {state.alarmed_at} ({Path(seen[state.alarmed_at - 1]).name}): {state.reason}"
        )


def _watch(detector: Detector, monitor: DriftMonitor, paths: list[Path]) -> tuple[list[str], list[str]]:
    """Show every readable image to the monitor; which these were, and the reasons of those that were skipped."""
    from orinspect_edge_runtime.preprocess import Skipped, read_frames
    from orinspect_edge_runtime.progress import track

    seen, skipped = list[str](), list[Skipped]()
    frames = read_frames(paths, detector.view.spec, skipped)
    for frame in track(frames, "drift", len(paths)):
        verdict = detector(frame)
        monitor.update(verdict.score, verdict.embedding, frame.pixels)
        seen.append(frame.source)
    warn_skipped([one.reason for one in skipped])
    return seen, [one.reason for one in skipped]
