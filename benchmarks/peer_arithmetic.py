"""The parts that must be equal on both sides: metrics of the same scores, and coresets of the same points."""

from __future__ import annotations

import time

import numpy as np
from peer_place import Place
from peer_process import Peer
from peer_turns import Row

from orinspect_edge_runtime import metrics
from orinspect_edge_runtime.coreset import greedy_k_centre

NAMES = ("auroc", "average_precision", "f1_max")
SHARE = 0.025


def compare_metrics(peer: Peer) -> Row:
    """Largest difference of AUROC, AP and best F1 over random label and score lists, with ties and without."""
    rng, largest = np.random.default_rng(0), dict.fromkeys(NAMES, 0.0)
    for round_number in range(20):
        count = int(rng.integers(2, 200))
        labels = np.arange(count) < rng.integers(1, count)
        scores = rng.random(count) if round_number % 2 else rng.integers(0, 5, count) / 5
        scores = scores.astype(np.float32).astype(float)
        theirs = peer.ask("metrics", labels=labels.astype(int).tolist(), scores=scores.tolist())
        for name in largest:
            largest[name] = max(largest[name], abs(theirs[name] - getattr(metrics, name)(labels, scores)))
    return {"lists": 20, "largest_difference": largest}


def compare_coresets(peer: Peer, place: Place, count: int) -> Row:
    """The same points, the same first pick: do both pick the same, and how long do they take?"""
    flat = place.patches["fp32"].reshape(-1, place.patches["fp32"].shape[2])
    points = flat[np.sort(np.random.default_rng(1).choice(len(flat), count, replace=False))]
    points = np.ascontiguousarray(points - points.mean(axis=0))
    np.save(place.folder / "points.npy", points)
    start = time.process_time()
    ours = greedy_k_centre(points, int(count * SHARE), first=0)
    seconds = time.process_time() - start
    theirs = peer.ask("coreset", points=str(place.folder / "points.npy"), share=SHARE, first=0)
    kept = points[theirs["picks"]]
    nearest = (kept**2).sum(1) - 2 * points @ kept.T
    radius = float(np.sqrt(np.maximum(nearest.min(axis=1) + (points**2).sum(1), 0).max()))
    return {
        "points": count, "picks": len(kept), "same_picks": int((ours.indices == theirs["picks"]).sum()),
        "our_cpu_s": seconds, "their_cpu_s": theirs["cpu_s"], "times_as_fast": theirs["cpu_s"] / seconds,
        "our_radius": ours.radius, "their_radius": radius,
    }  # fmt: skip
