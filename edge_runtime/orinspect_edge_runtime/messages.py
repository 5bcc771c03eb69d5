"""What several commands say on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from orinspect_edge_runtime.detector import Detector


def tell_backend(detector: Detector) -> None:
    """On stderr: what runs, and a warning when the recipe was fitted on something else."""
    click.echo(f"runs {detector.description}", err=True)
    if detector.fitted_elsewhere is not None:
        click.echo(f"warning: {detector.fitted_elsewhere}", err=True)


def warn_skipped(reasons: list[str]) -> None:
    """On stderr: why images were left out, the first five in full."""
    for reason in reasons[:5]:
        click.echo(f"skipped: {reason}", err=True)
    if len(reasons) > 5:
        click.echo(f"skipped: {len(reasons) - 5} more", err=True)


def tell_resumed(images: int) -> None:
    """On stderr: that a job went on where an earlier run of it was."""
    if images:
        click.echo(f"{images} of the images had been done by an earlier run of this job", err=True)
