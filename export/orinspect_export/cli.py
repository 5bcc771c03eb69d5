"""The command `orinspect export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from orinspect_export.exporter import Exported

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=PATH)
@click.option("--out", type=PATH, required=True, help="Bundle to write, a folder.")
@click.option(
    "--precision", default="fp32,fp16,int8", show_default=True, help="Precisions to write, with commas; also int8-cpu."
)
@click.option("--calibration", type=PATH, required=True, help="Folder of images such as the device will see.")
@click.option(
    "--turns",
    is_flag=True,
    help="Embed each frame turned four ways, for knn and mahalanobis after `rotation` or `csi`: four times the work.",
)
@click.option(
    "--second-scale",
    type=float,
    metavar="FACTOR",
    help="Take patches of each frame at FACTOR times the size too, for scorers with a map: FACTOR squared the work more.",
)
@click.option("--calibrator", help="min-max, percentile, entropy or mse.  [default: mse; with --modelopt: min-max]")
@click.option(
    "--modelopt",
    type=PATH,
    metavar="PYTHON",
    help="Let NVIDIA ModelOpt place int8: the Python of an environment with nvidia-modelopt[onnx].",
)
@click.option(
    "--min-rank-correlation",
    type=click.FloatRange(-1, 1),
    default=0.999,
    show_default=True,
    help="Least rank correlation of the scores with fp32's; layers stay in a higher precision until it is reached.",
)
@click.option(
    "--max-flips",
    type=click.FloatRange(0, 1),
    default=0.001,
    show_default=True,
    help="Largest share of the verdicts that may differ from fp32's.",
)
@click.option(
    "--labelled", type=PATH, help="Dataset with good and defective images: hold --max-auroc-drop on it instead."
)
@click.option("--max-auroc-drop", type=click.FloatRange(0), default=0.2, show_default=True, help="In points of AUROC.")
@click.option("--seed", default=0, show_default=True, help="Of the choice of images.")
@click.option("--force", "replace", is_flag=True, help="Replace the bundle if it exists.")
@click.option("--verify-compiler", is_flag=True, help="Build every graph with NVIDIA's compiler too (no GPU needed).")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def export(
    run: Path,
    out: Path,
    precision: str,
    calibration: Path,
    min_rank_correlation: float,
    max_flips: float,
    max_auroc_drop: float,
    *,
    as_json: bool,
    **options: Any,
) -> None:
    """Export a pretrained encoder to a bundle: ONNX graphs with golden outputs, checked against each other.

    \b
    Example:  orinspect export RUN --out BUNDLE --calibration images/
              orinspect export RUN --out BUNDLE --calibration images/ --turns
              orinspect export RUN --out BUNDLE --calibration images/ --second-scale 1.67
    """
    from orinspect_edge_runtime.progress import shares

    with shares("export") as show:
        # torch takes seconds to import: the bar is there first.
        from orinspect_export.decisions import Budget
        from orinspect_export.exporter import ExportOptions, export_run

        chosen = tuple(dict.fromkeys(name.strip() for name in precision.split(",") if name.strip()))
        budget = Budget(min_rank_correlation, max_flips, max_auroc_drop)
        asked = ExportOptions(chosen, budget=budget, **options)
        exported = export_run(run, out, calibration, asked, show)
    for reason in exported.skipped:
        click.echo(f"skipped: {reason}", err=True)
    for reason in exported.refused.values():
        click.echo(f"left out: {reason}", err=True)
    if as_json:
        click.echo(json.dumps(_result(out, exported), indent=2))
        return
    graphs = exported.manifest.graphs
    megabytes = sum(entry.bytes for entry in exported.manifest.files.values()) / 1e6
    click.echo(f"{out}: {len(graphs)} graphs ({', '.join(exported.manifest.precisions)}), {megabytes:.1f} MB")
    _print_parity(exported.manifest.parity)
    for name, build in exported.builds.items():
        click.echo(f"built {name}: {build['layers']} layers, {build['seconds']:.1f} s, {build['megabytes']:.1f} MB")


def _result(out: Path, exported: Exported) -> dict[str, Any]:
    manifest = exported.manifest
    files = {name: vars(entry) for name, entry in manifest.files.items()}
    graphs = [{"head": g.head, "precision": g.precision, "file": g.file} for g in manifest.graphs]
    return {
        "bundle": str(out),
        "graphs": graphs,
        "files": files,
        "parity": manifest.parity,
        "builds": exported.builds,
        "skipped": list(exported.skipped),
        "refused": exported.refused,
    }


def _print_parity(parity: dict[str, Any]) -> None:
    """The table of parity.Parity by precision, against fp32."""
    rows = {name: figures for name, figures in parity.items() if "embedding_cosine_min" in figures}
    if not rows:
        return
    click.echo("against fp32      embedding cosine      patch cosine          scores      verdicts  layers kept")
    click.echo("                  mean      least       mean      least       rank        flipped")
    for name, row in rows.items():
        cosines = [row[f"{what}_cosine_{how}"] for what in ("embedding", "patch") for how in ("mean", "min")]
        figures = "  ".join(f"{value:8.5f}" for value in cosines)
        rank = "-" if row["score_rank_correlation"] is None else f"{row['score_rank_correlation']:.4f}"
        kept = f"{len(row['kept'])} of {row['layers']} in {row['kept_in']}"
        click.echo(f"{name:16}{figures}  {rank:>8}  {row['verdict_flips']:11.1%}  {kept}")
        for layer, reason in row["warnings"].items():
            click.echo(f"{name}: {layer}: {reason}", err=True)
