"""Charts as SVG text (matplotlib), in one look: no frame, few colours, readable on a dark page too."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

INK, GOOD, BAD, ACCENT, MUTED = "#4a5568", "#2b8a78", "#d1495b", "#3066be", "#a0aec0"
COLOURS = (ACCENT, BAD, GOOD, "#8e5ea2", "#c98a1b", MUTED)


def _figure(width: float = 5.2, height: float = 3.4) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(alpha=0.25, color=MUTED, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any, axes: Any, x: str, y: str, *, legend: bool = True) -> str:
    import matplotlib
    from matplotlib.text import Text

    axes.set_xlabel(x, color=INK, fontsize=10)
    axes.set_ylabel(y, color=INK, fontsize=10)
    if legend:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    for text in figure.findobj(Text):
        # A name with dollar signs in it is a name, not a formula.
        text.set_parse_math(False)
    file = io.StringIO()
    # Text stays text (small files, copyable); ids are seeded so that equal data gives equal bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "orinspect", "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def line_chart(x: Sequence[float], lines: Mapping[str, Sequence[float]], x_label: str, y_label: str) -> str:
    """Lines over a common x and in one unit, by name."""
    figure, axes = _figure()
    for number, (name, values) in enumerate(lines.items()):
        axes.plot(x, values, color=COLOURS[number % len(COLOURS)], label=name, linewidth=1.6)
    return _svg(figure, axes, x_label, y_label, legend=len(lines) > 1)


def roc_chart(curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> str:
    """ROC curves by name: (false positive rates, true positive rates)."""
    figure, axes = _figure(4.4, 4.0)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
    for number, (name, (fpr, tpr)) in enumerate(curves.items()):
        axes.plot(fpr, tpr, color=COLOURS[number % len(COLOURS)], label=name, linewidth=1.6)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    return _svg(figure, axes, "good images called defective", "defective images found")


def score_histogram(good: NDArray[np.float64], bad: NDArray[np.float64], threshold: float) -> str:
    """Scores of good and defective images with the threshold; the axis ends at the 99th percentile of all."""
    figure, axes = _figure(6.4, 3.4)
    both = np.concatenate([good, bad, [threshold]])
    edges = np.linspace(both.min(), max(float(np.percentile(both, 99)), threshold * 1.1), 46)
    for values, colour, name in ((good, GOOD, "good"), (bad, BAD, "defective")):
        inside = np.clip(values, edges[0], edges[-1])
        weights = np.full(len(values), 1 / max(len(values), 1))
        axes.hist(inside, edges, weights=weights, color=colour, alpha=0.6, label=f"{name} ({len(values)})")
    axes.axvline(threshold, color=INK, linewidth=1.4, linestyle="--", label=f"threshold {threshold:.2f}")
    return _svg(figure, axes, "score (standard deviations above a usual good image)", "share of images")


def bar_chart(bars: Mapping[str, float], label: str) -> str:
    """Horizontal bars with their values written beside them."""
    figure, axes = _figure(5.2, 0.5 + 0.42 * len(bars))
    places = np.arange(len(bars))[::-1]
    axes.barh(places, list(bars.values()), color=ACCENT, height=0.62)
    axes.set_yticks(places, list(bars))
    for place, value in zip(places, bars.values(), strict=True):
        axes.annotate(f" {value:.3g}", (value, place), va="center", fontsize=9, color=INK)
    axes.margins(x=0.14)
    return _svg(figure, axes, label, "", legend=False)


def curve_chart(
    curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    x_label: str,
    y_label: str,
    *,
    steps: bool = False,
    dots: bool = False,
) -> str:
    """Curves by name, each with its own (x, y). steps: y holds until the next x. dots: points without a line."""
    figure, axes = _figure()
    for number, (name, (x, y)) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        if dots:
            axes.plot(x, y, color=colour, label=name, linestyle="", marker=".", markersize=3, alpha=0.7)
        else:
            axes.plot(x, y, color=colour, label=name, linewidth=1.6, drawstyle="steps-post" if steps else "default")
    return _svg(figure, axes, x_label, y_label, legend=len(curves) > 1)


def range_chart(largest: Sequence[float], typical: Sequence[float], limits: Mapping[str, float], x_label: str) -> str:
    """Magnitudes on a logarithmic axis: the largest value and the middle channel's of each tensor, with limits by name."""
    figure, axes = _figure()
    places = np.arange(len(largest))
    axes.vlines(places, np.maximum(typical, 1e-9), np.maximum(largest, 1e-9), color=MUTED, linewidth=1.0)
    axes.plot(places, largest, ".", color=ACCENT, markersize=5, label="largest value")
    axes.plot(places, np.maximum(typical, 1e-9), ".", color=MUTED, markersize=4, label="middle channel")
    for number, (name, value) in enumerate(limits.items()):
        axes.axhline(value, color=COLOURS[(number + 1) % len(COLOURS)], linewidth=1.0, linestyle=":", label=name)
    axes.set_yscale("log")
    # Powers of ten are set as formulas by default, and the text of the SVG is not set at all.
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return _svg(figure, axes, x_label, "magnitude")
