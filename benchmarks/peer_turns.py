"""Contenders that take turns at the same image files, and what their times and scores say of each other."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peer_process import Peer

from orinspect_edge_runtime import Detector, metrics

Row = dict[str, Any]
# Before the last word of a contender's name: the key of how many times as fast as it one is.
RATIO = "times_as_fast_as_"
Runs = dict[str, Callable[[Path], Row]]


def theirs(peer: Peer, name: str, files: dict[str, str]) -> Runs:
    """A library's inferencers of exported models, opened; `forget` closes them."""

    def run(key: str) -> Callable[[Path], Row]:
        return lambda path: peer.ask("predict", key=key, image=str(path))

    for kind in peer.kinds:
        peer.ask("open_model", key=f"{name} {kind}", kind=kind, file=files[kind])
    return {f"{name} {kind}": run(f"{name} {kind}") for kind in peer.kinds}


def forget(peer: Peer, name: str) -> None:
    for kind in peer.kinds:
        peer.ask("close_model", key=f"{name} {kind}")


def ours(detectors: dict[str, Detector]) -> Runs:
    def run(detector: Detector) -> Callable[[Path], Row]:
        return lambda path: judged(detector, path)

    return {name: run(detector) for name, detector in detectors.items()}


def judged(detector: Detector, path: Path) -> Row:
    """Score and map of a file by ours, as the peers' `predict`."""
    wall, cpu = time.perf_counter(), time.process_time()
    verdict = detector(path)
    times = {"wall_ms": (time.perf_counter() - wall) * 1e3, "cpu_ms": (time.process_time() - cpu) * 1e3}
    assert verdict.anomaly_map is not None
    return times | {"score": verdict.score, "map": verdict.anomaly_map[::8, ::8].tolist()}


def turns(runs: Runs, files: list[Path]) -> dict[str, list[Row]]:
    """What each contender gives for each file; the first file twice before, unmeasured."""
    for _ in range(2):
        for run in runs.values():
            run(files[0])
    done: dict[str, list[Row]] = {name: [] for name in runs}
    order = list(runs)
    for path in files:
        for name in order:
            done[name].append(runs[name](path))
        order = order[1:] + order[:1]
    return done


def column(rows: list[Row], name: str) -> Any:
    return np.array([row[name] for row in rows])


def times(done: dict[str, list[Row]], name: str, against: str) -> Row:
    """Times of a contender, and how many times as fast it is as each inferencer of `against`."""
    row: Row = {key: spread(column(done[name], key)) for key in ("cpu_ms", "wall_ms")}
    for other in (other for other in done if other.startswith(f"{against} ")):
        ratio = column(done[other], "cpu_ms") / column(done[name], "cpu_ms")
        low, middle, high = np.quantile(ratio, [0.1, 0.5, 0.9])
        row[f"{RATIO}{other.split()[-1]}"] = {"median": middle, "low": low, "high": high}
    return row


def agreement(mine: Any, other: Any) -> Row:
    return {
        "rank_correlation": metrics.spearman(mine, other),
        "largest_score_difference": float(np.abs(mine / other - 1).max()),
    }


def spread(values: Any) -> Row:
    return {"min": float(values.min()), "median": float(np.median(values)), "p99": float(np.quantile(values, 0.99))}
