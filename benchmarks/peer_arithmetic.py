"""The parts that must be equal on both sides: metrics of the same scores, and coresets of the same points."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from peer_place import Place
from peer_process import Peer
from peer_turns import Row

from orinspect_edge_runtime import metrics
from orinspect_edge_runtime.coreset import greedy_k_centre

OF_IMAGES = {"auroc": metrics.auroc, "average_precision": metrics.average_precision, "f1_max": metrics.f1_max}
OF_PIXELS = {
    "pixel_auroc": metrics.pixel_auroc,
    "aupro_30": metrics.aupro,
    "aupro_05": partial(metrics.aupro, limit=0.05),
}
ROUNDS, MAPS = 20, (3, 24, 24)
SHARE = 0.025


def compare_metrics(peer: Peer) -> Row:
    """Largest difference of each metric over random labels and scores, masks and maps, with ties and without.

    Every other set of masks has one that is empty. They add up in float32: maps of more pixels would measure that.
    """
    rng, largest = np.random.default_rng(0), dict.fromkeys([*OF_IMAGES, *OF_PIXELS], 0.0)
    for round_number in range(ROUNDS):
        count = int(rng.integers(2, 200))
        labels = np.arange(count) < rng.integers(1, count)
        scores = rng.random(count) if round_number % 2 else rng.integers(0, 5, count) / 5
        scores = scores.astype(np.float32).astype(float)
        theirs = peer.ask("metrics", labels=labels.astype(int).tolist(), scores=scores.tolist())
        ours = {name: metric(labels, scores) for name, metric in OF_IMAGES.items()}
        masks = rng.random(MAPS) < 0.15
        masks[0] &= round_number % 2 == 0
        maps = (rng.standard_normal(MAPS) + 1.2 * masks).astype(np.float32)
        maps = np.round(maps * 3) / 3 if round_number % 4 > 1 else maps
        theirs |= peer.ask("pixel_metrics", masks=masks.astype(int).tolist(), maps=maps.tolist())
        ours |= {name: metric(masks, maps) for name, metric in OF_PIXELS.items()}
        largest = {name: max(value, abs(theirs[name] - ours[name])) for name, value in largest.items()}
    return {"lists": ROUNDS, "maps": [ROUNDS, *MAPS], "largest_difference": largest}


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
