"""The commands embed and check; the longer ones have files of their own. Thin: each parses, calls, prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from orinspect_edge_runtime.messages import tell_resumed, warn_skipped
from orinspect_edge_runtime.options import (
    PATH,
    backend_option,
    bundle_argument,
    engine_option,
    json_option,
    threads_option,
)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


@click.command()
@bundle_argument
@click.argument("images", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="File to write, .npz or .parquet.")
@click.option("--precision", default="fp32", show_default=True)
@engine_option
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
    tell_resumed(done.resumed)
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
