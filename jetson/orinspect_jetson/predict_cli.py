"""Commands of the predictor: predict, advise."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from orinspect_jetson.predictor.advice import Advice
    from orinspect_jetson.predictor.prediction import Estimate, Prediction

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
head_option = click.option("--head", help="Scoring head of a bundle; its first without.")
size_option = click.option("--size", "sizes", multiple=True, metavar="NAME=N", help="Size of a free axis of the graph.")
NOTE = "a prediction, not a measurement; not yet run on hardware"


@click.command()
@click.argument("model")
@click.option("--device", default="orin-nx-16", show_default=True, help="orin-nano-8, orin-nx-16, agx-orin-64, ...")
@click.option("--mode", help="Power mode by name; the device's fastest without.")
@click.option("--precision", default="fp16", show_default=True, help="fp32 (TF32), fp16 or int8.")
@click.option("--batch", default=1, show_default=True)
@click.option("--cuda-graph", "graph", is_flag=True, help="The engine is replayed as a CUDA graph.")
@head_option
@size_option
@json_option
def predict(
    model: str,
    *,
    device: str,
    mode: str | None,
    head: str | None,
    sizes: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Predict latency, energy and memory on a Jetson Orin, before owning one.

    MODEL is an .onnx file, a bundle, or the name of a network with published latencies (resnet50, YOLO11n, ...).

    \b
    orinspect predict MODEL.onnx --device orin-nx-16 --mode 25W --precision int8
    orinspect predict BUNDLE --device orin-nano-8 --mode MAXN_SUPER --json
    """
    from orinspect_jetson.predictor.model_source import read_model
    from orinspect_jetson.predictor.operating_point import operating_point
    from orinspect_jetson.predictor.prediction import predict as run

    point = operating_point(device, mode)
    made = run(read_model(model, head, _parse_sizes(sizes)), point, **options)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(made) | {"note": NOTE}, indent=2))
        return
    for line in _lines(made):
        click.echo(line)


@click.command()
@click.argument("model")
@click.option("--fps", type=float, required=True, help="Images a second to keep up with.")
@click.option("--watts", type=float, help="Most board power, averaged at that rate.")
@click.option("--precision", default="fp16", show_default=True, help="fp32 (TF32), fp16 or int8.")
@click.option("--all", "show_all", is_flag=True, help="Also list what does not keep up or is not allowed.")
@head_option
@size_option
@json_option
def advise(
    model: str,
    *,
    fps: float,
    watts: float | None,
    precision: str,
    show_all: bool,
    head: str | None,
    sizes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Rank modules and power modes that keep up with a rate, the most frugal first.

    \b
    orinspect advise --fps 30 --watts 15 MODEL.onnx
    """
    from orinspect_jetson.predictor.advice import NO
    from orinspect_jetson.predictor.advice import advise as run
    from orinspect_jetson.predictor.model_source import read_model

    found = run(read_model(model, head, _parse_sizes(sizes)), fps, watts, precision)
    kept = [a for a in found if show_all or (a.allowed and a.keeps_up != NO)]
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(a) for a in kept], indent=2))
        return
    for line in _table(kept, fps):
        click.echo(line)


def _parse_sizes(texts: tuple[str, ...]) -> dict[str, int]:
    from orinspect_edge_runtime.errors import InputError

    sizes = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if not name or not number.isdecimal() or int(number) < 1:
            raise InputError(f"--size {text}: write NAME=N, like --size groups=1")
        sizes[name] = int(number)
    return sizes


def _lines(made: Prediction) -> list[str]:
    point, time = made.point, made.time
    clock = f"{point.sm} SM at {point.gpu_mhz:g} MHz, {point.bandwidth_gb_s:g} GB/s"
    parts = (
        f"arithmetic {time.compute_ms:.2f} ms, memory {time.memory_ms:.2f} ms, gaps between kernels {time.gap_ms:.2f}"
    )
    memory = "" if made.fits_memory else f"  does not fit {point.memory_gb} GB"
    return [
        f"{made.model} on {point.label}, {made.precision}, batch {made.batch}",
        f"board       {clock}",
        f"latency     {_text(made.latency_ms, 'ms')}",
        f"throughput  {_text(made.throughput, 'images/s')}",
        f"energy      {_text(made.energy_mj, 'mJ an image')}, board {_text(made.board_w, 'W')}  (rough)",
        f"memory      {_text(made.memory_mb, 'MB')}  (estimate){memory}",
        f"bound by    {parts} ms",
        f"basis       {made.basis}; {NOTE}",
    ]


def _text(estimate: Estimate, unit: str) -> str:
    return f"{_digits(estimate.value)} {unit} (90 %: {_digits(estimate.low)} to {_digits(estimate.high)})"


def _digits(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _table(found: list[Advice], fps: float) -> list[str]:
    if not found:
        return [f"no module keeps up with {fps:g} images/s within these limits; --all shows by how much"]
    rows = [("device and mode", "SM x MHz", "latency ms (90 %)", f"{fps:g} fps", "average W")]
    for advice in found:
        point, latency = advice.point, advice.prediction.latency_ms
        span = f"{_digits(latency.value)} ({_digits(latency.low)} to {_digits(latency.high)})"
        watts = f"{advice.average_w:.1f}" + ("" if advice.allowed else " (not allowed)")
        rows.append((point.label, f"{point.sm} x {point.gpu_mhz:g}", span, advice.keeps_up, watts))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines, f"every line is {NOTE}"]
