"""Two products with the same encoder and weights, as their users run them: accuracy and latency.

Ours: `pretrain --epochs 0`, `export`, `fit`, with the defaults: whitened patches and a small bank, or PaDiM on 14x14 places
of 152 numbers. `by labels` is int8-cpu of `export --labelled` with 100 good and 100 defective cells that are neither fitted
on nor tested: they only decide how many layers stay in fp32, by 0.2 points of AUROC. Theirs: PatchCore of stages 2 and 3
with 20,000 rows, raw features and nine neighbours; PaDiM of stages 1 to 3, 100 features drawn at 56x56 places. Same
weights, same good cells, same test cells, 224 pixels.

AnomaVision has no such encoder: both sides have ResNet-18, whose weights nobody could download, with random weights. Its
PaDiM is compared as its config.yml has it, 50 features drawn of stage 1 at 56x56 places, and as its quick start has it, 100
of stages 1 to 3; its PatchCore with its defaults, 784 rows (2 %) of stages 2 and 3 at 14x14 places. What runs of the
encoder differs: theirs stops at the last stage that it needs, ours goes on to the end for the embedding. Our own encoder,
with ImageNet weights, takes its turns beside, for its latency alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peer_encoder import LAYERS
from peer_images import Files
from peer_process import Peer
from peer_start import our_start, their_start
from peer_turns import Row, forget, ours, theirs, times, turns

from orinspect_edge_runtime import Bundle, Detector, metrics
from orinspect_edge_runtime.coreset import greedy_k_centre

ENCODER, SIZE = "tf_efficientnet_lite0", 224
PRECISIONS = ("fp32", "int8-cpu")
OURS, BY_LABELS = "orinspect", "int8-cpu by labels"
ROWS, POOL = 20_000, 60_000
THEIR_PADIM = {"layers": ["blocks.1", *LAYERS[ENCODER]], "features": 100}


class Product:
    """Our bundles and their models, made in a folder from the same good images.

    files: their known images are fitted on, the first `tested` of the others are tested; the rest, if there is one, are
    labelled for `export`. encoder: with ImageNet weights, or `init` of `orinspect pretrain`.
    """

    def __init__(self, folder: Path, files: Files, tested: int, encoder: str = ENCODER, init: str = "imagenet") -> None:
        self.folder, self.run, self.encoder, self._init = folder, folder / "run", encoder, init
        self.good, self.test, self.labels = files.known, files.test[:tested], files.labels[:tested]
        self._fitted = folder / f"good-{len(self.good)}"
        self._labelled = folder / f"labelled-{len(files.test) - tested}"
        _link(self._fitted, self.good)
        for name, bad in (("good", False), ("defective", True)):
            rest = zip(files.test[tested:], files.labels[tested:], strict=True)
            _link(self._labelled / name, [path for path, is_bad in rest if is_bad == bad])

    def our_detectors(self, scorer: str) -> dict[str, Detector]:
        """By contender: both precisions as they are exported without labels, and int8-cpu with them."""
        plain = self.bundle(f"bundle-{len(self.good)}")
        found = {f"{OURS} {p}": self._detector(plain, scorer, p) for p in plain.manifest.precisions}
        if not any(self._labelled.glob("*/*")):
            return found
        labelled = self.bundle(f"bundle-{len(self.good)}-by-labels", "--labelled", str(self._labelled))
        return found | {f"{OURS} {BY_LABELS}": self._detector(labelled, scorer, "int8-cpu")}

    def bundle(self, name: str, *options: str) -> Bundle:
        """A bundle of both precisions; made once, and the run before it."""
        if not self.run.exists():
            start = ("--epochs", "0", "--encoder", self.encoder, "--init", self._init)
            _orinspect("pretrain", str(self._fitted), "--out", str(self.run), "--size", str(SIZE), *start)
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

    def their_anomavision(self, peer: Peer, scorer: str, name: str, **options: Any) -> dict[str, str]:
        """Their files of a model with these options; made once."""
        kept = self.folder / name / "files.json"
        if not kept.exists():
            made = peer.ask(
                "fit", scorer=scorer, weights=str(self.run / "encoder.safetensors"), size=SIZE, folder=str(kept.parent),
                images=[str(path) for path in self.good], **options,
            )  # fmt: skip
            kept.write_text(json.dumps(made))
        return dict(json.loads(kept.read_text()))

    def their_padim(self, peer: Peer) -> Any:
        return peer.ask(
            "padim", name="padim", backbone=ENCODER, size=SIZE, weights=str(self.run / "encoder.safetensors"),
            images=[str(path) for path in self.good], folder=str(self.folder), **THEIR_PADIM,
        )  # fmt: skip


Make = Callable[[Peer], dict[str, str]]


def compare_products(
    peer: Peer, product: Product, scorer: str, images: int, make: Make, python: Path | None = None,
    besides: Product | None = None,
) -> Row:  # fmt: skip
    """Latency of `images` files in turns, and AUROC over all test files with a paired bootstrap of the difference.

    make: their exported models, by kind. python: the peer's, to compare the starts of processes too. besides: ours with
    another encoder, of which only the latency is compared.
    """
    detectors, made, other = product.our_detectors(scorer), make(peer), peer.library
    more = {} if besides is None else _of_other_encoder(besides, scorer)
    runs = theirs(peer, other, made) | ours(detectors | more)
    done = turns(runs, product.test[:images])
    reference = f"{other} {peer.kinds[0]}"
    scored = {name: runs[name] for name in (reference, *detectors)}
    scores = {name: np.array([run(path)["score"] for path in product.test]) for name, run in scored.items()}
    forget(peer, other)
    rows = [
        {"contender": name} | times(done, name, other) | _accuracy(product.labels, scores, name, reference)
        for name in done
    ]
    recipes = {name: _described(detector) for name, detector in detectors.items()}
    for detector in (*detectors.values(), *more.values()):
        detector.close()
    return {
        "encoder": product.encoder, "size": SIZE, "scorer": scorer, "good_images": len(product.good), "images": images,
        "tested": len(product.test), "recipes": recipes, "rows": rows,
        "starts": [] if python is None else _starts(python, product, scorer, other, made),
    }  # fmt: skip


def _of_other_encoder(product: Product, scorer: str) -> dict[str, Detector]:
    found = product.our_detectors(scorer).items()
    return {name.replace(OURS, f"{OURS} {product.encoder}"): detector for name, detector in found}


def _starts(python: Path, product: Product, scorer: str, library: str, made: dict[str, str]) -> list[Row]:
    """CPU seconds and peak memory from the start of a process to its first score of a file."""
    plain, image = product.bundle(f"bundle-{len(product.good)}"), product.test[0]
    spent = {
        f"{OURS} {p}": our_start(plain.path, f"{scorer}-{p}", image, product.folder) for p in plain.manifest.precisions
    }
    for kind, file in made.items():
        spent[f"{library} {kind}"] = their_start(library, python, product.folder, kind, file, image)
    return [{"contender": name} | costs for name, costs in spent.items()]


def _described(detector: Detector) -> Row:
    """Shapes of a recipe's arrays, and its groups."""
    arrays = detector.recipe.arrays
    return {name: list(arrays[name].shape) for name in ("bank", "patch_factors", "group_bias") if name in arrays}


def _accuracy(labels: Any, scores: dict[str, Any], name: str, reference: str) -> Row:
    """AUROC of a contender, and how much above the reference's, with 95 % intervals. Of the reference's other kinds none:
    they are the same model.
    """
    if name not in scores:
        return {}
    mine, other = scores[name], scores[reference]
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
