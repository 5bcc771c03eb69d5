"""A result as Markdown and as a self-contained page."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np

from orinspect_edge_runtime import charts
from orinspect_edge_runtime.bench import summary
from orinspect_edge_runtime.bench.latency import all_times
from orinspect_edge_runtime.report import Page, Table


def markdown(result: dict[str, Any]) -> str:
    """The tables with their conditions, and the notes."""
    if "results" in result:
        return f"# {_title(result)}\n\n{_markdown_table(summary.sweep_table(result))}"
    parts = [f"# {_title(result)}", *(_markdown_table(table) for table in summary.tables(result))]
    return "\n\n".join([*parts, "\n".join(f"- {_cell(note)}" for note in summary.notes(result))]) + "\n"


def page(result: dict[str, Any], commands: tuple[str, ...] = ()) -> Page:
    """The page of `orinspect bench --html`."""
    if "results" in result:
        first = result["results"][0]
        return Page(
            title=_title(result),
            lead=f"{first['encoder']}, head {first['head']}, on {first['conditions']['machine']}.",
            figures=(("Throughput by batch", _sweep_chart(result)),),
            tables=(summary.sweep_table(result),),
            commands=commands,
        )
    return Page(
        title=_title(result),
        lead=f"{result['scenario']}, {result['encoder']}, head {result['head']}, on {result['conditions']['machine']}.",
        facts=_facts(result),
        figures=_figures(result),
        tables=summary.tables(result),
        notes=summary.notes(result),
        commands=commands,
        footer=f"Result format {result['format']}, {result['conditions']['measured_at']}",
    )


def _title(result: dict[str, Any]) -> str:
    return "Throughput of a bundle" if "results" in result else f"Speed of a bundle, {result['scenario']}"


def _facts(result: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    facts = [
        (f"{row['p50_ms']:.2f} ms", f"{row['precision']} median; p99 {row['p99_ms']:.2f} ms")
        for row in result["latencies"]
    ]
    return (
        *facts,
        ("clean" if result["clean"] else "not clean", "; ".join(result["why_not"]) or "nothing disturbed it"),
    )


def _figures(result: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    times = {p: all_times(rounds) for p, rounds in result["times_ms"].items()}
    shares = {p: (np.sort(t), np.arange(1, len(t) + 1) / len(t)) for p, t in times.items()}
    figures = [
        ("Share of calls done within a time", charts.curve_chart(shares, "ms a call", "share of calls", steps=True)),
        ("Latency over time", charts.curve_chart(_over_time(result), "seconds", "ms a call", dots=True)),
    ]
    if result["telemetry"]["measured"]:
        figures += _board_figures(result["telemetry"]["readings"])
    return tuple(figures)


def _over_time(result: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """When each call ended, seconds, with its milliseconds."""
    if "server" in result:
        # Latencies overlap there: calls are numbered through their turn instead.
        return {p: _along_spans(result, p) for p in result["times_ms"]}
    curves = {}
    for precision, rounds in result["times_ms"].items():
        at: list[float] = []
        for (start, _), values in zip(result["round_spans_s"][precision], rounds, strict=True):
            at += [start + ms / 1e3 for ms in accumulate(values)]
        curves[precision] = (np.array(at), all_times(rounds))
    return curves


def _along_spans(result: dict[str, Any], precision: str) -> tuple[Any, Any]:
    times, spans = all_times(result["times_ms"][precision]), result["round_spans_s"][precision]
    parts = np.array_split(np.arange(len(times)), len(spans))
    at = [np.linspace(a, b, len(part), endpoint=False) for (a, b), part in zip(spans, parts, strict=True)]
    return np.concatenate(at), times


def _board_figures(readings: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Power, temperatures and clocks over time, those that were read."""
    names = sorted({name for r in readings for name in r["temperatures_c"]})
    curves = {
        "Power of the board": ({"board": [(r["at_s"], r["watts"]) for r in readings if r["watts"] is not None]}, "W"),
        "Temperatures": (
            {n: [(r["at_s"], r["temperatures_c"][n]) for r in readings if n in r["temperatures_c"]] for n in names},
            "C",
        ),
        "Clocks": (
            {
                "GPU": [(r["at_s"], r["gpu_mhz"]) for r in readings if r["gpu_mhz"] is not None],
                "fastest CPU": [(r["at_s"], max(r["cpu_mhz"])) for r in readings if r["cpu_mhz"]],
            },
            "MHz",
        ),
    }
    found = []
    for title, (lines, unit) in curves.items():
        drawn = {name: tuple(np.array(points).T) for name, points in lines.items() if points}
        if drawn:
            found.append((title, charts.curve_chart(drawn, "seconds", unit)))
    return found


def _sweep_chart(sweep: dict[str, Any]) -> str:
    lines: dict[str, list[tuple[float, float]]] = {}
    for result in sweep["results"]:
        for row in result["latencies"]:
            lines.setdefault(summary.sweep_label(result, row), []).append((row["batch"], row["frames_per_second"]))
    curves = {name: tuple(np.array(sorted(points)).T) for name, points in lines.items()}
    return charts.curve_chart(curves, "frames a call", "frames/s")


def _markdown_table(table: Table) -> str:
    lines = [f"## {table.title}", "", _row(table.head), _row(("---",) * len(table.head)), *map(_row, table.rows)]
    return "\n".join([*lines, *(("", table.caption) if table.caption else ())])


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
