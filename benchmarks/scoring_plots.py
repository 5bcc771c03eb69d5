"""Figures of scoring_accuracy.py for the docs, drawn from its result file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def draw(sections: dict[str, Any], docs: Path) -> None:
    """Write docs/scoring-shots.svg and docs/scoring-groups.svg, those whose section is there."""
    if "shots" in sections:
        _shots(sections["shots"]["rows"], docs / "scoring-shots.svg")
    if "elpv" in sections:
        _groups(sections["elpv"]["rows"], docs / "scoring-groups.svg")


def _shots(rows: list[dict[str, Any]], path: Path) -> None:
    figure, axes = blank_figure(2)
    for axis, name, title in zip(
        axes, ("elpv", "brushed"), ("solar cells (ELPV)", "rendered brushed metal"), strict=True
    ):
        for scorer in dict.fromkeys(row["scorer"] for row in rows):
            mine = [row for row in rows if row["scorer"] == scorer]
            counts, values = [row["images"] for row in mine], np.array([row[name] for row in mine])
            axis.plot(counts, values.mean(axis=1), marker="o", label=scorer)
            axis.fill_between(counts, values.min(axis=1), values.max(axis=1), alpha=0.15)
        axis.set(xscale="log", xticks=counts, xticklabels=counts, xlabel="good images", title=title)
    axes[0].set_ylabel("image AUROC, mean and range of draws")
    axes[1].legend()
    figure.savefig(path)


def _groups(rows: list[dict[str, Any]], path: Path) -> None:
    figure, (axis,) = blank_figure(1)
    for scorer in dict.fromkeys(row["scorer"] for row in rows):
        mine = [row for row in rows if row["scorer"] == scorer and row["groups"] > 0]
        counts, values = [row["groups"] for row in mine], np.array([row["auroc"] for row in mine])
        axis.errorbar(
            counts,
            values.mean(axis=1),
            (values.mean(axis=1) - values.min(axis=1), values.max(axis=1) - values.mean(axis=1)),
            marker="o",
            capsize=3,
            label=scorer,
        )
    axis.set(xticks=counts, xlabel="groups of good images", ylabel="image AUROC on ELPV", title="two kinds of cell")
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(path)


def blank_figure(count: int) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    # The same figures give the same file.
    mpl.rcParams.update({"svg.hashsalt": "orinspect", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, count, figsize=(4.4 * count, 3.4), layout="constrained", squeeze=False)
    return figure, axes[0]
