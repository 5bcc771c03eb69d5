"""PatchCore with the same bank on both sides: latency, the agreement of scores and maps, and the start of a process."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from peer_place import ENCODER, Place, bundle_with, exported, frame_of
from peer_process import Peer
from peer_start import our_start, their_start
from peer_turns import Row, agreement, column, forget, ours, theirs, times, turns
from PIL import Image

from orinspect_edge_runtime import Bundle, Detector, metrics
from orinspect_edge_runtime.backends import searching
from orinspect_edge_runtime.bank_rule import BankRule

FLAT = "orinspect fp32 flat"
# num_neighbors of their default.
THEIR_NEIGHBOURS = 9


def latency(peer: Peer, place: Place, rows: int, images: int) -> list[Row]:
    """A row a contender: times, ratios to it, and agreement, for one bank."""
    made = exported(peer, place, rows)
    files, labels = place.files.test[:images], place.files.labels[:images]
    nearest = _their_scores(peer, made["torch"], files, 1)
    detectors = _detectors(place, rows)
    done = turns(theirs(peer, "anomalib", made) | ours(detectors), files)
    forget(peer, "anomalib")
    for detector in detectors.values():
        detector.close()
    common = {"encoder": ENCODER, "size": place.size, "bank": rows, "images": images}
    return [common | {"contender": name} | _summary(done, name, nearest, labels) for name in done]


def same_pixels(peer: Peer, place: Place, rows: int, images: int) -> Row:
    """Agreement of our fp32 on lossless images of the model's size, which nobody has to resize.

    `reweighted`: with their default of nine neighbours, by which they weigh the score, as `fit --reweight 9`.
    """
    copies = []
    for path in place.files.test[:images]:
        copies.append(place.folder / f"{path.stem}.png")
        Image.fromarray(frame_of(path, place.bundle.manifest.preprocess)).save(copies[-1])
    bundle, file = bundle_with(place, rows), exported(peer, place, rows)["torch"]
    plain = bundle.recipe("fp32")
    ruled = replace(plain, name="reweighted", arrays=plain.arrays | BankRule(reweight=THEIR_NEIGHBOURS).arrays())
    nearest = agreement(_our_scores(bundle, "fp32", copies), _their_scores(peer, file, copies, 1))
    mine = _our_scores(bundle.add_recipe(ruled), "reweighted", copies)
    other = _their_scores(peer, file, copies, THEIR_NEIGHBOURS)
    return {"bank": rows, "images": images} | nearest | {"reweighted": agreement(mine, other)}


def _our_scores(bundle: Bundle, recipe: str, images: list[Path]) -> Any:
    with Detector.load(bundle, recipe, threads=1) as detector:
        return np.array([detector(path).score for path in images])


def _their_scores(peer: Peer, file: str, images: list[Path], neighbours: int) -> Any:
    """With num_neighbors = 1: the largest distance of a patch to its nearest row, as ours."""
    peer.ask("open_model", key="nearest", kind="torch", file=file, neighbours=neighbours)
    scores = [peer.ask("predict", key="nearest", image=str(path))["score"] for path in images]
    peer.ask("close_model", key="nearest")
    return np.array(scores)


def _detectors(place: Place, rows: int) -> dict[str, Detector]:
    """Ours: both precisions as they come, and fp32 with the search left in the graph."""
    bundle = bundle_with(place, rows)
    opened = {f"orinspect {p}": Detector.load(bundle, p, threads=1) for p in bundle.manifest.precisions}
    fewest, searching.FEWEST_PAIRS = searching.FEWEST_PAIRS, sys.maxsize
    opened[FLAT] = Detector.load(bundle, "fp32", threads=1)
    searching.FEWEST_PAIRS = fewest
    return opened


def _summary(done: dict[str, list[Row]], name: str, nearest: Any, labels: Any) -> Row:
    score = column(done[name], "score")
    row = times(done, name, "anomalib") | agreement(score, nearest) | {"auroc": metrics.auroc(labels, score)}
    if name.startswith("orinspect"):
        pairs = zip(column(done[name], "map"), column(done[FLAT], "map"), strict=True)
        row["map_correlation_with_flat"] = float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]))
        row["score_difference_to_flat"] = float(np.abs(score / column(done[FLAT], "score") - 1).max())
    return row


def starts(peer: Peer, python: Path, place: Place, rows: int) -> list[Row]:
    """CPU seconds and peak memory from the start of a process to its first score of a file, with one bank."""
    image, folder, bundle = place.files.test[0], place.folder, bundle_with(place, rows)
    spent = {f"orinspect {p}": our_start(bundle.path, p, image, folder) for p in bundle.manifest.precisions}
    for kind, file in exported(peer, place, rows).items():
        spent[f"anomalib {kind}"] = their_start("anomalib", python, folder, kind, file, image)
    return [{"contender": name, "bank": rows} | costs for name, costs in spent.items()]
