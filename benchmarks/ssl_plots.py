"""Figures of ssl_fashion.py and ssl_textures.py for the docs, drawn from their result files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fashion
import numpy as np
from scoring_plots import blank_figure

Row = dict[str, Any]
SHOWN = ("raw", "untrained", "rotation", "rotation + raw", "turns + rotation")


def draw_fashion(forms: dict[str, Row], path: Path) -> None:
    """One class against nine by class on the left, accuracy of all classes by seconds of training on the right."""
    page, (left, right) = blank_figure(2)
    if "one-class" in forms:
        _by_class(left, forms["one-class"]["rows"])
    _by_seconds(right, [forms[name] for name in forms if name.startswith("all-")])
    page.savefig(path)


def _by_class(axis: Any, rows: Row) -> None:
    order = np.argsort(rows["raw"]["by_class"])
    for name in (name for name in SHOWN if name in rows):
        values = np.array(rows[name]["by_class"])[order]
        axis.plot(values, range(len(order)), "o", markersize=4, label=f"{name}: {rows[name]['mean']:.3f}")
    axis.set(yticks=range(len(order)), yticklabels=[fashion.CLASSES[i] for i in order], xlabel="image AUROC")
    axis.set_title("one class against nine")
    axis.legend(fontsize=7, loc="lower left")


def _by_seconds(axis: Any, forms: list[Row]) -> None:
    forms = sorted(forms, key=lambda form: float(form["cpu_seconds"]))
    seconds = [form["cpu_seconds"] for form in forms]
    for metric, colour in (("knn", "C0"), ("linear", "C1")):
        values = [form["rows"]["pretrained"][metric]["accuracy"] for form in forms]
        axis.plot(seconds, values, "o-", color=colour, label=f"pretrained, {metric}")
        for name, style in (("raw", "--"), ("untrained", ":")):
            axis.axhline(
                forms[0]["rows"][name][metric]["accuracy"], color=colour, linestyle=style, label=f"{name}, {metric}"
            )
    axis.set(xscale="log", xlabel="CPU-seconds of pretraining", ylabel="accuracy", title="all ten classes")
    axis.legend(fontsize=7)


def draw_textures(rows: dict[str, Row], path: Path) -> None:
    """Image AUROC and AUPRO by texture and row, of patchcore."""
    page, axes = blank_figure(2)
    names = list(next(iter(rows.values()))["textures"])
    for axis, metric in zip(axes, ("auroc", "aupro_30"), strict=True):
        for place, (name, row) in enumerate(rows.items()):
            means = [np.mean([run["patchcore"][metric] for run in row["textures"][one]]) for one in names]
            axis.bar(np.arange(len(names)) + 0.8 * place / len(rows), means, 0.8 / len(rows), label=name)
        axis.set(xticks=np.arange(len(names)) + 0.4, xticklabels=names, ylim=(0, 1), title=metric.replace("_30", ""))
    axes[0].legend(fontsize=7, loc="lower left")
    page.savefig(path)
