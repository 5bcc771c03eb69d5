"""Figures of ssl_fashion.py and ssl_textures.py for the docs, drawn from their result files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fashion
import numpy as np
from scoring_plots import blank_figure

Row = dict[str, Any]
# Row, form and name of what is shown of one class against nine.
SHOWN = (
    ("raw", "one-class", "raw pixels"),
    ("untrained", "one-class", "untrained"),
    ("four turns", "one-class", "rotation, four turns"),
    ("pretrained", "one-class-hour", "csi"),
)


def draw_fashion(forms: dict[str, Row], path: Path) -> None:
    """One class against nine by class, and accuracy of all classes by seconds of training: those that were measured."""
    trained = [form for name, form in forms.items() if name.startswith("all-")]
    page, axes = blank_figure(("one-class" in forms) + bool(trained))
    if "one-class" in forms:
        _by_class(axes[0], forms)
    if trained:
        _by_seconds(axes[-1], trained)
    page.savefig(path)


def _by_class(axis: Any, forms: dict[str, Row]) -> None:
    order = np.argsort(forms["one-class"]["rows"]["raw"]["by_class"])
    for row, form, label in SHOWN:
        if form in forms:
            found = forms[form]["rows"][row]
            values = np.array(found["by_class"])[order]
            axis.plot(values, range(len(order)), "o", markersize=4, label=f"{label}: {found['mean']:.3f}")
    axis.set(yticks=range(len(order)), yticklabels=[fashion.CLASSES[i] for i in order], xlabel="image AUROC")
    axis.set_title("one class against nine")
    axis.legend(fontsize=7, loc="upper left")


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
    axis.set_xticks(seconds, [f"{value:.0f}" for value in seconds])
    axis.minorticks_off()
    axis.set_ylim(bottom=axis.get_ylim()[0] - 0.06)
    axis.legend(fontsize=7, ncols=2, loc="lower right")


def draw_textures(rows: dict[str, Row], path: Path) -> None:
    """Image AUROC and AUPRO by texture, row and scorer."""
    page, axes = blank_figure(2)
    names = list(next(iter(rows.values()))["textures"])
    # Adapted behind their patches, encoders differ in the scorer of the whole image alone.
    untrained = [(row, scorer) for row in ("imagenet", "scratch") for scorer in ("padim", "patchcore")]
    embedded = [(row, "mahalanobis") for row in rows]
    for axis, metric, title, bars in (
        (axes[0], "auroc", "image AUROC", untrained + embedded),
        (axes[1], "aupro_30", "AUPRO", untrained),
    ):
        width, places = 0.8 / len(bars), np.arange(len(names))
        for number, (row, scorer) in enumerate(bars):
            means = [np.mean([run[scorer][metric] for run in rows[row]["textures"][name]]) for name in names]
            axis.bar(places + (number + 0.5) * width, means, width, label=f"{row}, {scorer}")
        axis.set(xticks=places + 0.4, xticklabels=names, ylim=(0, 1), title=title)
    axes[1].legend(*axes[0].get_legend_handles_labels(), fontsize=7, loc="upper right")
    page.savefig(path)
