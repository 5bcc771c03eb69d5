"""A result in words and tables: for the terminal, Markdown and the page."""

from __future__ import annotations

from typing import Any

from orinspect_edge_runtime.bench.comparison import Comparison
from orinspect_edge_runtime.report import Table, latency_table

# Of fewer calls the 99th percentile is little more than the greatest time.
RUNS_FOR_P99 = 500


def tables(result: dict[str, Any]) -> tuple[Table, ...]:
    """Latency, server, stages, start and energy: those that were measured."""
    found = (_server_table, _stage_table, _start_table, _energy_table)
    return (latency_table(result), *(table for make in found if (table := make(result)) is not None))


def sweep_table(sweep: dict[str, Any]) -> Table:
    """Frames a second of every precision, power mode and batch."""
    rows = tuple(
        (
            sweep_label(result, row),
            str(row["batch"]),
            f"{row['frames_per_second']:.1f}",
            f"{row['p50_ms']:.2f}",
            row["runs_on"],
        )
        for result in sweep["results"]
        for row in result["latencies"]
    )
    return Table("Sweep", ("precision", "batch", "frames/s", "p50 ms a batch", "runs on"), rows, _conditions(sweep))


def sweep_label(result: dict[str, Any], row: dict[str, Any]) -> str:
    """The precision, with the power mode where modes were swept."""
    return f"{row['precision']} {result['power_mode']}" if result["power_mode"] else str(row["precision"])


def comparison_line(found: Comparison) -> str:
    """One line: the ratio, its interval and the verdict."""
    return (
        f"{found.precision}: {found.ratio:.3f}x the time of the other run (95 % interval {found.low:.3f} to "
        f"{found.high:.3f}): {found.verdict}"
    )


def clean_lines(result: dict[str, Any]) -> list[str]:
    """Whether the run is clean, and why not."""
    if result["clean"]:
        return ["clean: nothing known disturbed this run"]
    return ["not clean:", *(f"  - {reason}" for reason in result["why_not"])]


def notes(result: dict[str, Any]) -> tuple[str, ...]:
    """What a reader of the figures must know."""
    found = [f"Not clean: {reason}." for reason in result["why_not"]] or ["Clean: nothing known disturbed this run."]
    runs = min(row["runs"] for row in result["latencies"])
    if runs < RUNS_FOR_P99:
        found.append(f"Of {runs} calls the 99th percentile is little more than the greatest time; pass more --runs.")
    if not result["telemetry"]["measured"]:
        found.append("Energy, clocks and temperatures: not measured here.")
    return tuple(found)


def _conditions(sweep: dict[str, Any]) -> str:
    first = sweep["results"][0]
    c, dirty = first["conditions"], sum(not result["clean"] for result in sweep["results"])
    return (
        f"offline, {first['measures']}. {first['encoder']}, head {first['head']}. {c['machine']}, {c['threads']} threads, "
        f"{c['measured_at']}. {dirty} of {len(sweep['results'])} runs not clean."
    )


def _server_table(result: dict[str, Any]) -> Table | None:
    if "server" not in result:
        return None
    rows = tuple(
        (
            precision,
            f"{row['rate']:.2f}",
            f"{row['kept_fps']:.2f}",
            "-" if row["within_bound"] is None else f"{row['within_bound']:.1%} within {row['bound_ms']:g} ms",
            f"{row['p99_ms']:.2f}",
            f"{row['wait_p99_ms']:.2f}",
            _largest(row),
        )
        for precision, row in result["server"].items()
    )
    head = ("precision", "frames/s asked", "frames/s kept", "in time", "p99 ms", "waiting, p99 ms", "largest rate")
    caption = "Frames arrive by chance (Poisson, seeded) and never wait for the server to be ready; waiting counts."
    return Table("Server", head, rows, caption)


def _largest(row: dict[str, Any]) -> str:
    if "tries" not in row:
        return "-"
    return "none kept the bound" if row["largest_rate"] is None else f"{row['largest_rate']:.2f} frames/s"


def _stage_table(result: dict[str, Any]) -> Table | None:
    stages = result["stages"]
    if stages is None:
        return None
    names = list(next(iter(stages["p50"].values())))
    rows = tuple((p, *(f"{row[name]:.2f}" for name in names)) for p, row in stages["p50"].items())
    head = ("precision", *(f"{name.removesuffix('_ms').replace('_', ' ')} ms" for name in names))
    return Table(
        "Stages of one verdict", head, rows, f"Medians; read from {stages['images']} file(s): {stages['source']}."
    )


def _start_table(result: dict[str, Any]) -> Table | None:
    if not result["cold_start"]:
        return None
    rows = tuple(
        (precision, f"{row['wall_s']:.2f}", f"{row['cpu_s']:.2f}", _mib(row["peak_mib"]))
        for precision, starts in result["cold_start"].items()
        for row in starts
    )
    mib = {name: _mib(value) for name, value in result["memory_mib"].items()}
    caption = (
        "From the start of a fresh process to its first verdict, files in the page cache. Resident memory of the "
        f"measuring process: {mib['before']} MiB before, {mib['after']} after, {mib['peak']} peak."
    )
    return Table("Cold start", ("precision", "wall s", "CPU s", "peak memory MiB"), rows, caption)


def _mib(value: float | None) -> str:
    return "not known" if value is None else f"{value:.0f}"


def _energy_table(result: dict[str, Any]) -> Table | None:
    seen = result["telemetry"]
    if not seen["measured"]:
        return None
    rows = tuple(
        (p, row["why_not"], "-", "-")
        if row["joules"] is None
        else (p, f"{row['joules_per_image']:.4f}", f"{row['joules']:.1f}", f"{row['watts']:.2f}")
        for p, row in seen["energy"].items()
    )
    idle = "not known" if seen["idle_watts"] is None else f"{seen['idle_watts']:.2f} W"
    caption = f"Whole board over the timed rounds, idle power not subtracted; idle before: {idle}."
    return Table("Energy", ("precision", "J an image", "J", "W"), rows, caption)
