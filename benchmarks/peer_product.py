"""Both products with the ImageNet weights of EfficientNet-Lite0, as their users run them: accuracy and latency.

Ours: `pretrain --epochs 0`, `export`, `fit`, with the defaults: whitened patches and a small bank, or PaDiM on 14x14 places
of 152 numbers. `by labels` is int8-cpu of `export --labelled` with 100 good and 100 defective cells that are neither fitted
on nor tested: they only decide how many layers stay in fp32, by 0.2 points of AUROC. Theirs: PatchCore of stages 2 and 3
with 20,000 rows, raw features and nine neighbours; PaDiM of stages 1 to 3, 100 features drawn at 56x56 places. Same
weights, same good cells, same test cells, 224 pixels.
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
BY_LABELS = "int8-cpu by labels"
ROWS, POOL = 20_000, 60_000
THEIR_PADIM = {"layers": ["blocks.1", *LAYERS[ENCODER]], "features": 100}


class Product:
    """Our bundles and their models, made in a folder from the same good images.

    files: their known images are fitted on, the first `tested` of the others are tested; the rest are labelled for `export`.
    """

    def __init__(self, folder: Path, files: Files, tested: int) -> None:
        self.folder, self.run = folder, folder / "run"
        self.good, self.test, self.labels = files.known, files.test[:tested], files.labels[:tested]
        self._fitted = folder / f"good-{len(self.good)}"
        self._labelled = folder / f"labelled-{len(files.test) - tested}"
        _link(self._fitted, self.good)
        for name, bad in (("good", False), ("defective", True)):
            rest = zip(files.test[tested:], files.labels[tested:], strict=True)
            _link(self._labelled / name, [path for path, is_bad in rest if is_bad == bad])

    def our_detectors(self, scorer: str) -> dict[str, Detector]:
        """By contender: both precisions as they are exported without labels, and int8-cpu with them."""
        if not self.run.exists():
            _orinspect("pretrain", str(self._fitted), "--out", str(self.run), "--epochs", "0", "--size", str(SIZE))
        plain = self._bundle(f"bundle-{len(self.good)}")
        labelled = self._bundle(f"bundle-{len(self.good)}-by-labels", "--labelled", str(self._labelled))
        found = {f"orinspect {p}": self._detector(plain, scorer, p) for p in plain.manifest.precisions}
        return found | {f"orinspect {BY_LABELS}": self._detector(labelled, scorer, "int8-cpu")}

    def _bundle(self, name: str, *options: str) -> Bundle:
        if not (self.folder / name).exists():
            asked = ("--precision", ",".join(PRECISIONS), "--calibration", str(self._fitted), *options)
            _orinspect("export", str(self.run), "--out", str(self.folder / name), *asked)
        return Bundle.open(self.folder / name)

    def _detector(self, bundle: Bundle, scorer: str, precision: str) -> Detector:
        recipe = f"{scorer}-{precision}"
        if recipe not in bundle.now().manifest.recipes:
            options = ("--recipe", recipe, "--scorer", scorer, "--precision", precision)
            _orinspect("fit", str(bundle.path), str(self._fitted), *options)
        return Detector.load(bundle.now(), recipe, threads=1)

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
    detectors = product.our_detectors(scorer)
    made = product.their_patchcore(peer) if scorer == "patchcore" else product.their_padim(peer)
    runs = theirs(peer, "anomalib", made) | ours(detectors)
    done = turns(runs, product.test[:images])
    scored = {f"anomalib {KINDS[0]}": runs[f"anomalib {KINDS[0]}"]} | {name: runs[name] for name in detectors}
    scores = {name: np.array([run(path)["score"] for path in product.test]) for name, run in scored.items()}
    forget(peer, "anomalib")
    rows = [
        {"contender": name} | times(done, name, "anomalib") | _accuracy(product.labels, scores, name) for name in done
    ]
    recipes = {name: _described(detector) for name, detector in detectors.items()}
    for detector in detectors.values():
        detector.close()
    return {
        "encoder": ENCODER, "size": SIZE, "scorer": scorer, "good_images": len(product.good), "images": images,
        "tested": len(product.test), "recipes": recipes, "rows": rows,
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


def _link(folder: Path, paths: list[Path]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        link = folder / path.name
        if not link.exists():
            link.symlink_to(path)


def _orinspect(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "orinspect_edge_runtime.cli", *arguments], check=True, stdout=sys.stderr)
