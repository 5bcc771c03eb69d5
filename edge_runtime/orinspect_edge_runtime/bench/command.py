"""The command `orinspect bench`. Thin: it parses, measures, compares, writes and prints."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orinspect_edge_runtime.options import PATH, backend_option, json_option, threads_option

if TYPE_CHECKING:
    from orinspect_edge_runtime.bench.comparison import Comparison


@click.command()
@click.argument("bundle", type=PATH, metavar="BUNDLE|RESULT.json")
@click.option("--precision", help="One or several, comma-separated; without it all, in alternating rounds.")
@click.option(
    "--scenario",
    default="single-stream",
    show_default=True,
    help="single-stream (one frame at a time), multi-stream (--streams frames at once), offline (batches, throughput) "
    "or server (frames arrive by chance and queue).",
)
@click.option(
    "--head", default="patchcore", show_default=True, help="patchcore, padim or student, when no recipe is named."
)
@click.option("--recipe", help="Measure with this recipe's arrays.")
@click.option("--runs", type=click.IntRange(1), default=100, show_default=True, help="Timed calls a precision.")
@click.option("--streams", type=int, default=4, show_default=True, help="multi-stream: frames at once.")
@click.option("--batch", type=int, default=8, show_default=True, help="offline: frames a call.")
@click.option("--rate", type=float, help="server: frames a second that arrive, on average.")
@click.option("--bound-ms", type=float, help="server: what a frame may take from its arrival on, milliseconds.")
@click.option("--find-rate", is_flag=True, help="server: look for the largest rate whose p99 keeps --bound-ms.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="server: of the arrivals.")
@click.option("--images", type=PATH, help="Folder of image files for the stages decode, resize, engine, post.")
@click.option(
    "--cold-starts", type=click.IntRange(0, 100), default=1, show_default=True, help="Fresh processes a precision."
)
@click.option("--sweep", is_flag=True, help="Offline throughput of every precision at every size of --batches.")
@click.option("--batches", default="1,2,4,8", show_default=True, help="sweep: frames a call, comma-separated.")
@click.option("--power-modes", help="sweep: power modes by name, comma-separated; as root. The former one comes back.")
@click.option("--compare", type=PATH, help="Another result to compare with: ratio of the medians, 95 % interval.")
@click.option("--baseline", type=PATH, help="Another result; exit code 1 when this one is slower than it may be.")
@click.option(
    "--max-regression", type=click.FloatRange(0, 1000), help="baseline: percent that may be lost.  [default: 5]"
)
@click.option("--out", type=PATH, help="File for the JSON result, with all raw times.")
@click.option("--markdown", type=PATH, help="File for the tables as Markdown.")
@click.option("--html", type=PATH, help="File for a self-contained page with plots.")
@backend_option
@threads_option
@json_option
def bench(
    bundle: Path,
    sweep: bool,
    batches: str,
    power_modes: str | None,
    compare: Path | None,
    baseline: Path | None,
    max_regression: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure speed on this machine, and write down the conditions; or compare results saved with --out.

    \b
    Example:  orinspect bench BUNDLE --runs 200 --out bench.json
              orinspect bench BUNDLE --scenario server --rate 30 --bound-ms 40
              orinspect bench new.json --compare old.json
              orinspect bench BUNDLE --baseline old.json --max-regression 5
    """
    from orinspect_edge_runtime.bench.result import read_result
    from orinspect_edge_runtime.errors import InputError

    if max_regression is not None and baseline is None:
        raise InputError("--max-regression says how much slower than a baseline is allowed: pass --baseline")
    if sweep and (compare or baseline):
        raise InputError("--sweep makes many results: compare single ones")
    if power_modes and not sweep:
        raise InputError(
            "--power-modes is for --sweep; to measure in one mode, set it with  sudo orinspect power --set"
        )
    # Read first: a measurement of minutes must not end in a file that was never there.
    others = {path: read_result(path) for path in (compare, baseline) if path is not None}
    files = {kind: options.pop(kind) for kind in ("out", "markdown", "html")}
    result = _result(bundle, (batches, power_modes) if sweep else None, files, bool(others), options)
    _write(result, files)
    found = {path: _compare(result, other) for path, other in others.items()}
    if as_json:
        told = {str(path): [asdict(c) | {"verdict": c.verdict} for c in rows] for path, rows in found.items()}
        click.echo(json.dumps(result | ({"comparisons": told} if told else {}), indent=2))
    else:
        _print_result(result)
        for path, rows in found.items():
            _print_comparison(path, rows, result, others[path])
    if baseline is not None:
        _require_no_regression(found[baseline], baseline, 5.0 if max_regression is None else max_regression)


def _result(
    bundle: Path,
    sweep: tuple[str, str | None] | None,
    files: dict[str, Path | None],
    has_other: bool,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Measured now, or read when the argument is a saved result. sweep: its batches and power modes, if it is one."""
    from orinspect_edge_runtime.bench.measure import run_bench
    from orinspect_edge_runtime.bench.plan import BenchOptions
    from orinspect_edge_runtime.bench.result import read_result
    from orinspect_edge_runtime.bench.sweep import parse_batches, run_sweep
    from orinspect_edge_runtime.bundle import Bundle
    from orinspect_edge_runtime.progress import shares

    if bundle.suffix == ".json" and bundle.is_file() and (has_other or files["markdown"] or files["html"]):
        return read_result(bundle)
    precision = options.pop("precision")
    chosen = BenchOptions(tuple(precision.split(",")) if precision else (), **options)
    sizes = parse_batches(sweep[0]) if sweep else ()
    modes = tuple(name.strip() for name in (sweep[1] or "").split(",") if name.strip()) if sweep else ()
    if files["html"] is not None:
        # Their lack is better told before the measurement than after it.
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    opened = Bundle.open(bundle)
    with shares("bench") as show:
        return run_sweep(opened, chosen, sizes, modes, show) if sweep else run_bench(opened, chosen, show)


def _write(result: dict[str, Any], files: dict[str, Path | None]) -> None:
    from orinspect_edge_runtime import durable
    from orinspect_edge_runtime.bench.page import markdown, page
    from orinspect_edge_runtime.report import write_report

    if (out := files["out"]) is not None:
        durable.write_bytes(out, json.dumps(result, indent=1).encode())
    if (text := files["markdown"]) is not None:
        durable.write_bytes(text, markdown(result).encode(errors="backslashreplace"))
    if (html := files["html"]) is not None:
        write_report(html, page(result))


def _compare(result: dict[str, Any], other: dict[str, Any]) -> list[Comparison]:
    from orinspect_edge_runtime.bench.result import compare_results

    return compare_results(result, other)


def _print_result(result: dict[str, Any]) -> None:
    from orinspect_edge_runtime.bench import summary

    if "results" in result:
        for row in summary.sweep_table(result).rows:
            click.echo(f"{row[0]} batch {row[1]}: {row[2]} frames/s, p50 {row[3]} ms a batch ({row[4]})")
        return
    for row in result["latencies"]:
        ratio = "" if row["ratio_p50"] is None else f", {row['ratio_p50']:.2f}x fp32"
        click.echo(
            f"{row['precision']}: p50 {row['p50_ms']:.2f} ms, p90 {row['p90_ms']:.2f} ms, p99 {row['p99_ms']:.2f} ms, "
            f"{row['frames_per_second']:.1f} frames/s{ratio} ({row['runs_on']})"
        )
    for table in summary.tables(result)[1:]:
        for cells in table.rows:
            pairs = zip(table.head[1:], cells[1:], strict=True)
            click.echo(f"{table.title.lower()}, {cells[0]}: " + ", ".join(f"{name} {cell}" for name, cell in pairs))
    conditions = result["conditions"]
    click.echo(f"{conditions['machine']}, {conditions['threads']} threads, load {conditions['load_before']} before")
    for line in summary.clean_lines(result):
        click.echo(line)


def _print_comparison(path: Path, rows: list[Comparison], result: dict[str, Any], other: dict[str, Any]) -> None:
    from orinspect_edge_runtime.bench.result import remarks
    from orinspect_edge_runtime.bench.summary import comparison_line

    click.echo(f"against {path}:")
    for found in rows:
        click.echo(comparison_line(found))
    for remark in remarks(result, other):
        click.echo(f"  - {remark}")


def _require_no_regression(rows: list[Comparison], baseline: Path, percent: float) -> None:
    """Raises CheckFailed when a precision is slower than the baseline by more than that, beyond doubt."""
    from orinspect_edge_runtime.bench.summary import comparison_line
    from orinspect_edge_runtime.errors import CheckFailed

    worse = [comparison_line(found) for found in rows if found.exceeds(percent)]
    if worse:
        raise CheckFailed(f"slower than {baseline} by more than {percent:g} %: {'; '.join(worse)}")
