"""The same encoder and the same memory banks for both sides: our bundle, its patches of good images, and banks of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peer_encoder import LAYERS, make_bundle
from peer_images import Files
from peer_process import Peer

from orinspect_edge_runtime import Bundle
from orinspect_edge_runtime.backends import open_backend
from orinspect_edge_runtime.coreset import greedy_k_centre
from orinspect_edge_runtime.features import extract
from orinspect_edge_runtime.heads import neutral_inputs
from orinspect_edge_runtime.preprocess import PreprocessSpec, fit_to_model, read_frame
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.scorers.patchcore import bank_columns
from orinspect_edge_runtime.tiling import view_of

ENCODER = "resnet18"
# A bank is the greedy coreset of so many times its rows; a larger one than MOST_PICKED a random draw.
POOL, MOST_PICKED = 3, 20_000


@dataclass
class Place:
    """Our bundle for one size of the model, and features [N, P, D] of the known images by precision."""

    size: int
    folder: Path
    files: Files
    bundle: Bundle
    weights: Path
    patches: dict[str, Any]

    @classmethod
    def make(cls, cache: Path, size: int, files: Files) -> Place:
        """Made once and kept under the cache."""
        folder = cache / f"{ENCODER}-{size}"
        folder.mkdir(exist_ok=True)
        spec, weights = PreprocessSpec(size, size), folder / "weights.safetensors"
        if not (folder / "bundle").exists():
            make_bundle(ENCODER, size, np.stack([frame_of(path, spec) for path in files.known[:64]]), folder)
        bundle = Bundle.open(folder / "bundle")
        patches = {precision: _patches(bundle, precision, files.known) for precision in bundle.manifest.precisions}
        return cls(size, folder, files, bundle, weights, patches)

    def bank(self, precision: str, rows: int) -> Any:
        """float32 [rows, D]. That of another precision than fp32 is made of the same patches as its graph sees them."""
        return self._flat(precision)[self._pick(rows)]

    def _pick(self, rows: int) -> Any:
        """Numbers of the bank's patches among those of all known images."""
        kept = self.folder / f"picks-{rows}-of-{len(self.files.known)}.npy"
        if not kept.exists():
            flat, rng = self._flat("fp32"), np.random.default_rng(rows)
            count = rows if rows > MOST_PICKED else POOL * rows
            pool = np.sort(rng.choice(len(flat), count, replace=False))
            if rows <= MOST_PICKED:
                pool = pool[greedy_k_centre(flat[pool] - flat[pool].mean(axis=0), rows, seed=0).indices]
            np.save(kept, pool)
        return np.load(kept)

    def _flat(self, precision: str) -> Any:
        patches = self.patches[precision]
        return patches.reshape(-1, patches.shape[2])


def frame_of(path: Path, spec: PreprocessSpec) -> Any:
    return fit_to_model(read_frame(path, spec).pixels, spec)


def _patches(bundle: Bundle, precision: str, paths: list[Path]) -> Any:
    kept = bundle.path.parent / f"patches-{precision}-{len(paths)}.npy"
    if not kept.exists():
        spec = bundle.manifest.graph(precision, "patchcore")
        with open_backend(bundle.read(spec.file), spec, threads=1) as backend:
            backend.set_inputs(neutral_inputs("patchcore", bundle.manifest.encoder))
            frames = (read_frame(path, bundle.manifest.preprocess) for path in paths)
            np.save(kept, extract(backend, frames, view_of(None, bundle.manifest)).patches)
    return np.load(kept, mmap_mode="r")


def exported(peer: Peer, place: Place, rows: int) -> Any:
    """anomalib's files of a PatchCore with that bank, by kind of inferencer; made once."""
    name = f"{place.size}-{rows}-of-{len(place.files.known)}"
    kept = place.folder / name / "files.json"
    if not kept.exists():
        file = place.folder / "bank.npy"
        np.save(file, place.bank("fp32", rows))
        made = peer.ask("patchcore", name=name, backbone=ENCODER, layers=LAYERS[ENCODER], weights=str(place.weights),
                        bank=str(file), size=place.size, folder=str(place.folder))  # fmt: skip
        kept.write_text(json.dumps(made))
    return json.loads(kept.read_text())


def bundle_with(place: Place, rows: int) -> Bundle:
    """A bundle with one recipe a precision, named by it, of a bank of that size."""
    folder = place.folder / f"bundle-{rows}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(place.bundle.path, folder)
    bundle = Bundle.open(folder)
    for precision in bundle.manifest.precisions:
        bundle = bundle.add_recipe(_recipe(place, precision, rows))
    return bundle


def _recipe(place: Place, precision: str, rows: int) -> Recipe:
    """A recipe with the very bank that anomalib is given: no whitening, no groups, raw distances as scores."""
    bank, encoder, good = place.bank(precision, rows), place.bundle.manifest.encoder, len(place.files.known)
    mean, spec = bank.mean(axis=0), place.bundle.manifest.graph(precision, "patchcore")
    arrays = neutral_inputs("patchcore", encoder) | {
        "patch_mean": mean,
        "patch_projection": np.eye(encoder.patch_dim, dtype=np.float32),
        "bank": bank_columns(bank - mean, np.zeros(rows), 1),
    }
    return Recipe(
        name=precision, scorer="patchcore", precision=precision,
        graph_sha256=place.bundle.manifest.files[spec.file].sha256, backend="onnxruntime", good_images=good,
        group_sizes=(good,), threshold=1e9, false_alarm=0.5, false_alarm_note="none", seed=0,
        created_with="vs_anomalib", arrays=arrays, calibration_scores=np.zeros(1, np.float32),
    )  # fmt: skip
