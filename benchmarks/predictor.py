"""How good is `orinspect predict`? Fit, audit and validate the predictor on published latencies.

    python benchmarks/predictor.py            everything, the plot too (about a minute)
    python benchmarks/predictor.py --quick    the main table only (some seconds)
    python benchmarks/predictor.py --write    and store the fitted coefficients in the package

Writes benchmarks/results/predictor.json and docs/predictor.svg. Nothing here ran on a Jetson: the truth is other
people's published rows (jetson/orinspect_jetson/data/predictor/published.csv).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orinspect_edge_runtime import durable
from orinspect_jetson.predictor.audit import TOO_FAST, audit, sound_rows
from orinspect_jetson.predictor.calibration import KNOWN, NEW, held_out, interval_factors
from orinspect_jetson.predictor.energy import busy_w
from orinspect_jetson.predictor.fitting import fit, log_ratio
from orinspect_jetson.predictor.published import Row, cells, published_rows
from orinspect_jetson.predictor.roofline import NAMES, Floats, breakdown

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/predictor.json"
PLOT = ROOT / "docs/predictor.svg"
COEFFICIENTS = ROOT / "jetson/orinspect_jetson/data/predictor/coefficients.json"
Key = Callable[[Row], Hashable]
SPLITS: dict[str, Key] = {
    "leave one device out": lambda row: row.device,
    "leave one family out": lambda row: row.family,
    "leave all YOLO out at once, or one other family": lambda row: "YOLO" if "YOLO" in row.family else row.family,
}


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="main table only, no plot, nothing written")
    parser.add_argument("--write", action="store_true", help="store the coefficients in the package")
    options = parser.parse_args()
    findings = audit(cells(published_rows()))
    rows = sound_rows(cells(published_rows()), findings)
    values = fit([row.sample() for row in rows])
    result: dict[str, Any] = {"published_rows": len(published_rows()), "cells_in_fit": len(rows)}
    result["findings"] = [dataclasses.asdict(finding) for finding in findings]
    result["in_sample"] = _summary(log_ratio([row.sample() for row in rows], values))
    errors = {name: held_out(rows, key) for name, key in SPLITS.items()}
    result["validation"] = {name: _validation(rows, SPLITS[name], e) for name, e in errors.items()}
    if not options.quick:
        result["coverage"] = {name: coverage(rows, key, errors[name]) for name, key in SPLITS.items()}
        result["flagged rows kept"] = _sensitivity(findings)
        result["power"] = _power(values)
        durable.write_bytes(RESULT, (json.dumps(result, indent=1) + "\n").encode())
        plot(rows, errors["leave one family out"], PLOT)
    if options.write:
        stored = {"values": {n: round(float(v), 6) for n, v in zip(NAMES, values, strict=True)}}
        stored["interval_factors"] = {name: round(f, 4) for name, f in interval_factors(rows).items()}
        stored["_made_by"] = f"benchmarks/predictor.py --write, from {len(rows)} cells of published.csv"
        durable.write_bytes(COEFFICIENTS, (json.dumps(stored, indent=1) + "\n").encode())
    _show(result)


def coverage(rows: Sequence[Row], key: Key, errors: Floats) -> dict[str, Any]:
    """How often the 90 % interval holds what was published, its width found without the rows that test it.

    A family that the other rows also contain gets the interval of a known family.
    """
    hits, by_group = [], {}
    for held in dict.fromkeys(key(row) for row in rows):
        others = [row for row in rows if key(row) != held]
        factors, families = interval_factors(others), {row.family for row in others}
        mine = [
            bool(abs(e) <= np.log(factors[KNOWN if row.family in families else NEW]))
            for row, e in zip(rows, errors, strict=True)
            if key(row) == held
        ]
        hits += mine
        by_group[str(held)] = round(float(np.mean(mine)), 3)
    return {"rows": round(float(np.mean(hits)), 3), "groups": round(float(np.mean(list(by_group.values()))), 3)} | {
        "by group": by_group
    }


def _summary(errors: Floats) -> dict[str, float]:
    off = 100 * np.abs(np.expm1(errors))
    found = {"cells": len(off), "median_abs_percent": np.median(off), "p90_abs_percent": np.quantile(off, 0.9)}
    return {k: round(float(v), 1) for k, v in (found | {"bias_percent": 100 * np.expm1(np.median(errors))}).items()}


def _validation(rows: Sequence[Row], key: Key, errors: Floats) -> dict[str, Any]:
    groups = {
        str(held): _summary(np.array([e for row, e in zip(rows, errors, strict=True) if key(row) == held]))
        for held in dict.fromkeys(key(row) for row in rows)
    }
    balanced = float(np.median([group["median_abs_percent"] for group in groups.values()]))
    return {"all": _summary(errors) | {"median_of_groups_percent": round(balanced, 1)}, "groups": groups}


def _sensitivity(findings: Sequence[Any]) -> dict[str, Any]:
    """The validation with the rows that are too fast for their mode kept: as labelled, and in the mode that fits."""
    fits = {(f.source, f.device, f.mode, f.family): f.fits for f in findings if f.verdict == TOO_FAST}
    rows = cells(published_rows())
    possible = sound_rows(rows, [f for f in findings if f.verdict != TOO_FAST])
    moved = [dataclasses.replace(r, mode=fits.get(r.group) or r.mode) for r in possible]
    names = list(SPLITS)[:2]
    return {
        label: {name: _summary(held_out(kept, SPLITS[name])) for name in names}
        for label, kept in (("as labelled", possible), ("in the mode that fits", moved))
    }


def _power(values: Floats) -> list[dict[str, Any]]:
    found = []
    for row in published_rows():
        if row.board_w is not None:
            sample = row.sample()
            watts = busy_w(sample.point, breakdown(sample.work, sample.point, values, row.harness))
            name = f"{row.device} {row.table} {row.precision} batch {row.batch}"
            found.append({"row": name, "published_w": row.board_w, "predicted_w": round(watts, 1)})
    return found


def plot(rows: Sequence[Row], errors: Floats, path: Path) -> None:
    """Predicted (by a fit without the row's family) against published latency."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "predictor"
    import matplotlib.pyplot as plt

    path.parent.mkdir(exist_ok=True)
    figure, axes = plt.subplots(figsize=(7, 6.2), layout="constrained")
    families = list(dict.fromkeys(row.family for row in rows))
    published = np.array([row.latency_ms for row in rows])
    predicted = published * np.exp(errors)
    marks = {"agx-orin-64": "o", "orin-nano-8": "s", "orin-nx-16": "^"}
    for i, family in enumerate(families):
        for device, mark in marks.items():
            mine = [j for j, r in enumerate(rows) if r.family == family and r.device == device]
            if mine:
                label = f"{family}, {device}"
                axes.scatter(published[mine], predicted[mine], s=26, marker=mark, color=f"C{i}", label=label, alpha=0.8)
    line = np.array([published.min() * 0.7, published.max() * 1.4])
    axes.plot(line, line, color="0.3", lw=1)
    for factor in (0.8, 1.25):
        axes.plot(line, line * factor, color="0.6", lw=0.8, ls="--")
    axes.set(xscale="log", yscale="log", xlabel="published latency, ms", ylabel="predicted latency, ms")
    axes.set_title("Each family predicted by a fit that never saw it (dashed: 25 %)", fontsize=10)
    axes.legend(fontsize=7, frameon=False)
    figure.savefig(path, metadata={"Date": None})


def _show(result: dict[str, Any]) -> None:
    print(f"{result['published_rows']} published rows, {result['cells_in_fit']} cells in the fit")
    for finding in result["findings"]:
        where = f"{finding['source'][:60]} {finding['device']} {finding['mode']}: {finding['family']}"
        print(f"  {finding['verdict']}: {where}, {finding['rows']} cells, {finding['text']}")
    print("in sample", result["in_sample"])
    for name, found in result["validation"].items():
        print(f"{name}: {found['all']}")
        for group, summary in found["groups"].items():
            print(f"  {group:16} {summary}")
    for name in ("coverage", "flagged rows kept", "power"):
        if name in result:
            print(name, json.dumps(result[name], indent=1))


if __name__ == "__main__":
    main()
