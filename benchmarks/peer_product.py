"""Both products with the ImageNet weights of EfficientNet-Lite0, as their users run them: accuracy and latency.

Ours: `pretrain --epochs 0`, `export`, `fit`, with the defaults: whitened patches and a small bank, or PaDiM on 14x14 places
of 152 numbers. Theirs: PatchCore of stages 2 and 3 with 20,000 rows, raw features and nine neighbours; PaDiM of stages 1 to
3, 100 features drawn at 56x56 places. Same weights, same good cells, same test cells, 224 pixels.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from peer_encoder import LAYERS
from peer_images import Files
from peer_process import KINDS, Peer
from peer_turns import Row, forget, ours, theirs, times, turns

from orinspect_edge_runtime import Bundle, Detector, metrics
from orinspect_edge_runtime.coreset import greedy_k_centre

ENCODER, SIZE = "tf_efficientnet_lite0", 224
PRECISIONS = ("fp32", "int8-cpu")
ROWS, POOL = 20_000, 60_000
THEIR_PADIM = {"layers": ["blocks.1", *LAYERS[ENCODER]], "features": 100}


class Product:
    """Our bundle and their models, made in a folder from the same good images."""

    def __init__(self, folder: Path, files: Files, fitted: int) -> None:
        self.files, self.folder = files, folder
        self.good, self._fitted = files.known[:fitted], folder / f"good-{fitted}"
        self.run, self.bundle = folder / "run", folder / f"bundle-{fitted}"
        self._fitted.mkdir(parents=True, exist_ok=True)
        for path in self.good:
            link = self._fitted / path.name
            if not link.exists():
                link.symlink_to(path)

    def our_bundle(self) -> Bundle:
        """With a recipe a scorer and precision."""
        if not self.run.exists():
            _orinspect("pretrain", str(self._fitted), "--out", str(self.run), "--epochs", "0", "--size", str(SIZE))
        if not self.bundle.exists():
            asked = ("--precision", ",".join(PRECISIONS), "--calibration", str(self._fitted))
            _orinspect("export", str(self.run), "--out", str(self.bundle), *asked)
        have = Bundle.open(self.bundle)
        for precision in have.manifest.precisions:
            for scorer in ("patchcore", "padim"):
                if f"{scorer}-{precision}" not in have.manifest.recipes:
                    options = ("--recipe", f"{scorer}-{precision}", "--scorer", scorer, "--precision", precision)
                    _orinspect("fit", str(self.bundle), str(self._fitted), *options)
        return have.now()

    def their_patchcore(self, peer: Peer) -> Any:
        """Their files; the bank is the greedy coreset of POOL patches, which are those that their own code makes."""
        asked: dict[str, Any] = {"backbone": ENCODER, "layers": LAYERS[ENCODER], "size": SIZE}
        asked |= {"weights": str(self.run / "encoder.safetensors")}
        points, bank = self.folder / "their-patches.npy", self.folder / "their-bank.npy"
        if not bank.exists():
            peer.ask("embed", images=[str(path) for path in self.good], file=str(points), **asked)
            flat = np.load(points, mmap_mode="r")
            pool = flat[np.sort(np.random.default_rng(0).choice(len(flat), POOL, replace=False))]
            np.save(bank, pool[greedy_k_centre(pool - pool.mean(axis=0), ROWS, seed=0).indices])
        return peer.ask("patchcore", name="patchcore", bank=str(bank), folder=str(self.folder), **asked)

    def their_padim(self, peer: Peer) -> Any:
        return peer.ask(
            "padim", name="padim", backbone=ENCODER, size=SIZE, weights=str(self.run / "encoder.safetensors"),
            images=[str(path) for path in self.good], folder=str(self.folder), **THEIR_PADIM,
        )  # fmt: skip


def compare_products(peer: Peer, product: Product, scorer: str, images: int) -> Row:
    """Latency of `images` files in turns, and AUROC over all test files with a paired bootstrap of the difference."""
    bundle = product.our_bundle()
    made = product.their_patchcore(peer) if scorer == "patchcore" else product.their_padim(peer)
    detectors = {
        f"orinspect {p}": Detector.load(bundle, f"{scorer}-{p}", threads=1) for p in bundle.manifest.precisions
    }
    runs = theirs(peer, "anomalib", made) | ours(detectors)
    done = turns(runs, product.files.test[:images])
    scored = {f"anomalib {KINDS[0]}": runs[f"anomalib {KINDS[0]}"]} | {name: runs[name] for name in detectors}
    scores = {name: np.array([run(path)["score"] for path in product.files.test]) for name, run in scored.items()}
    forget(peer, "anomalib")
    rows = [
        {"contender": name} | times(done, name, "anomalib") | _accuracy(product.files.labels, scores, name)
        for name in done
    ]
    recipes = {name: _described(detector) for name, detector in detectors.items()}
    for detector in detectors.values():
        detector.close()
    return {
        "encoder": ENCODER, "size": SIZE, "scorer": scorer, "good_images": len(product.good), "images": images,
        "tested": len(product.files.test), "recipes": recipes, "rows": rows,
    }  # fmt: skip


def _described(detector: Detector) -> Row:
    """Shapes of a recipe's arrays, and its groups."""
    arrays = detector.recipe.arrays
    return {name: list(arrays[name].shape) for name in ("bank", "patch_factors", "group_bias") if name in arrays}


def _accuracy(labels: Any, scores: dict[str, Any], name: str) -> Row:
    """AUROC of a contender, and how much above anomalib's, with 95 % intervals; of OpenVINO none, it is torch's model."""
    if name not in scores:
        return {}
    mine, other = scores[name], scores[f"anomalib {KINDS[0]}"]
    (interval,) = metrics.bootstrap_intervals([metrics.auroc], labels, mine)
    return {
        "auroc": metrics.auroc(labels, mine),
        "auroc_interval": interval,
        "auroc_gain_interval": _gain_interval(labels, mine, other),
    }


def _gain_interval(labels: Any, mine: Any, other: Any) -> tuple[float, float]:
    """95 % of the difference of two AUROCs, over test images drawn again among the good and among the defective."""
    rng, gains = np.random.default_rng(0), []
    for _ in range(1000):
        drawn = np.concatenate([rng.choice(group, len(group)) for group in map(np.flatnonzero, (~labels, labels))])
        gains.append(metrics.auroc(labels[drawn], mine[drawn]) - metrics.auroc(labels[drawn], other[drawn]))
    low, high = np.percentile(gains, [2.5, 97.5])
    return float(low), float(high)


def _orinspect(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "orinspect_edge_runtime.cli", *arguments], check=True, stdout=sys.stderr)
