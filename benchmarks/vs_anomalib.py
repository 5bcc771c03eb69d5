"""anomalib's inferencers against orinspect: the same encoder, the same memory bank, the same JPEG files, one core.

    python benchmarks/vs_anomalib.py            the whole of it; writes benchmarks/results/vs_anomalib.json
    python benchmarks/vs_anomalib.py --quick    two small banks, 10 images, about a minute; prints only

Every part of the result is measured once and kept in the cache with its conditions; a run that was stopped goes on.
The first run installs anomalib into a virtual environment under --cache (some gigabytes; `--peer` names one that exists).
Encoder: ResNet-18, stages 2 and 3 as anomalib joins them (28x28 patches of 384 numbers at 224 pixels), random weights
whose batch statistics fit the images, for no others can be had offline: the arithmetic is the same, the AUROC says
little. Images: ELPV solar cells as JPEG files of 900x900. Banks: patches of good cells, greedy coresets of three times as
many. A bank for int8-cpu is made of the same patches as that graph sees them.

Both processes are bound to one core and take turns image by image, in another order each time. Times are from the file
to score and full-size map. `cpu_ms` is the processor time of the process, which neighbours on a busy machine disturb
least; ratios are medians over images of anomalib's over ours, with the 10th and 90th percentile. `flat` is our graph
with the search inside of it. Agreement is with their scores of num_neighbors = 1, which are the same definition: on the
JPEG files, which each side decodes and resizes in its own way, and on lossless files of the model's size, which leave
only the arithmetic. Not compared: PaDiM, whose two implementations keep different features, and AnomaVision.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peer_encoder import LAYERS, make_bundle
from PIL import Image
from revision import revision
from rich.console import Console
from rich.table import Table

from orinspect_edge_runtime import Bundle, Detector, durable, metrics
from orinspect_edge_runtime.backends import open_backend, searching
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.coreset import greedy_k_centre
from orinspect_edge_runtime.features import extract
from orinspect_edge_runtime.heads import neutral_inputs
from orinspect_edge_runtime.preprocess import PreprocessSpec, fit_to_model, read_frame
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.scorers.patchcore import bank_columns
from orinspect_edge_runtime.tiling import view_of
from orinspect_train.solar_cells import read_cells, split_cells

RESULT = Path(__file__).parent / "results" / "vs_anomalib.json"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "orinspect" / "vs_anomalib"
PEER = Path(__file__).with_name("anomalib_peer.py")
PACKAGES = (["torch==2.14.1", "torchvision==0.29.1"], ["anomalib[openvino]==2.7.0"])
ENCODER, SIZE, SOURCE = "resnet18", 224, 900
# Rows of the bank, test images.
PLAN = ((20000, 16), (1000, 12), (5000, 16))
QUICK = ((1000, 10), (5000, 10))
# Good images the banks are made of; enough for the largest.
KNOWN, MOST_TESTED, POOL = 150, 40, 3
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
CONSOLE = Console(stderr=True)
Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--peer", type=Path, help="Python of an environment that has anomalib.")
    chosen = parser.parse_args()
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD)
    chosen.cache.mkdir(parents=True, exist_ok=True)
    python = chosen.peer or peer_environment(chosen.cache / "venv")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    plan = QUICK if chosen.quick else PLAN
    kept = Kept(chosen.cache / ("quick.json" if chosen.quick else RESULT.name))
    place = Place.make(chosen.cache, SIZE, image_files(chosen.cache / "images"))
    with Peer(python, chosen.cache) as peer:
        for rows, images in plan:
            kept.part(f"latency {rows}", latency, peer, place, rows, images)
        kept.part("start", cold_starts, python, place, [rows for rows, _ in plan])
        kept.part("metrics", compare_metrics, peer)
        kept.part("same pixels", same_pixels, peer, place, *plan[-1])
        kept.part("coreset", compare_coresets, peer, place, 4000 if chosen.quick else 20000)
    show(kept.parts)
    if not chosen.quick:
        durable.write_bytes(RESULT, kept.file.read_bytes())
    return 0


class Kept:
    """Parts of a result in a file. Each is measured once: a run that was stopped goes on with the parts it lacks."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.parts: dict[str, Row] = json.loads(file.read_text())["parts"] if file.exists() else {}

    def part(self, name: str, measure: Callable[..., Any], *arguments: Any) -> None:
        """Measure a part, with these arguments, unless it is there; its conditions and the commit are kept with it."""
        if name in self.parts:
            return
        CONSOLE.print(name)
        conditions = measure_conditions(1) | {"commit": revision(), "packages": PACKAGES}
        self.parts[name] = {"conditions": conditions, "found": measure(*arguments)}
        content = json.dumps({"protocol": __doc__, "parts": self.parts}, indent=2)
        durable.write_bytes(self.file, content.encode() + b"\n")


def peer_environment(folder: Path) -> Path:
    """Python of the environment with anomalib; installed when it is not there."""
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        for packages in PACKAGES:
            subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        (folder / "complete").touch()
    return python


class Peer:
    """anomalib's process: `ask` sends a request of anomalib_peer.py and waits for the answer."""

    def __init__(self, python: Path, folder: Path) -> None:
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **ONE_THREAD}
        self._log = (folder / "peer.log").open("a")
        self._process = subprocess.Popen(
            [python, PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env=environment, cwd=folder,
        )  # fmt: skip

    def ask(self, do: str, **request: Any) -> Any:
        """The answer. Raises RuntimeError with what anomalib said when it could not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "anomalib's process died; see peer.log"}
        if "error" in answer:
            raise RuntimeError(f"anomalib, {do}: {answer['error']}")
        return answer

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()


@dataclass
class Files:
    """Image files to learn from and to test on; labels of the latter, True: defective."""

    known: list[Path]
    test: list[Path]
    labels: Any


def image_files(folder: Path) -> Files:
    """The solar cells as JPEG files of SOURCE pixels; good and defective take turns in the test."""
    split = split_cells(read_cells())
    test = [cell for pair in zip(split.good, split.defective, strict=False) for cell in pair][:MOST_TESTED]
    folder.mkdir(exist_ok=True)

    def made(cell: Any) -> Path:
        path = folder / f"{cell.path.stem}.jpg"
        if not path.exists():
            big = Image.open(cell.path).convert("RGB").resize((SOURCE, SOURCE), Image.Resampling.BICUBIC)
            big.save(path, quality=90)
        return path

    known = [made(cell) for cell in split.fit[:KNOWN]]
    return Files(known, [made(cell) for cell in test], np.array([cell.probability > 0.6 for cell in test]))


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
            CONSOLE.print(f"making the bundle for {size} pixels")
            make_bundle(ENCODER, size, np.stack([frame_of(path, spec) for path in files.known[:64]]), folder)
        bundle = Bundle.open(folder / "bundle")
        patches = {precision: features(bundle, precision, files.known) for precision in bundle.manifest.precisions}
        return cls(size, folder, files, bundle, weights, patches)

    def pick(self, rows: int) -> Any:
        """Numbers of the bank's patches among those of all known images."""
        kept = self.folder / f"picks-{rows}.npy"
        if kept.exists():
            return np.load(kept)
        flat = self.patches["fp32"].reshape(-1, self.patches["fp32"].shape[2])
        rng = np.random.default_rng(rows)
        pool = np.sort(rng.choice(len(flat), POOL * rows, replace=False))
        picks = pool[greedy_k_centre(flat[pool] - flat[pool].mean(axis=0), rows, seed=0).indices]
        np.save(kept, picks)
        return picks

    def bank(self, precision: str, rows: int) -> Any:
        """float32 [rows, D]."""
        patches = self.patches[precision]
        return np.ascontiguousarray(patches.reshape(-1, patches.shape[2])[self.pick(rows)])


def frame_of(path: Path, spec: PreprocessSpec) -> Any:
    return fit_to_model(read_frame(path, spec).pixels, spec)


def features(bundle: Bundle, precision: str, paths: list[Path]) -> Any:
    kept = bundle.path.parent / f"patches-{precision}.npy"
    if not kept.exists():
        spec = bundle.manifest.graph(precision, "patchcore")
        with open_backend(bundle.read(spec.file), spec, threads=1) as backend:
            backend.set_inputs(neutral_inputs("patchcore", bundle.manifest.encoder))
            frames = (read_frame(path, bundle.manifest.preprocess) for path in paths)
            np.save(kept, extract(backend, frames, view_of(None, bundle.manifest)).patches)
    return np.load(kept)


def exported(peer: Peer, place: Place, rows: int) -> Any:
    """anomalib's files of a PatchCore with that bank, by kind of inferencer."""
    file = place.folder / "bank.npy"
    np.save(file, place.bank("fp32", rows))
    return peer.ask("patchcore", name=f"{place.size}-{rows}", backbone=ENCODER, layers=LAYERS[ENCODER],
                    weights=str(place.weights), bank=str(file), size=place.size, folder=str(place.folder))  # fmt: skip


def nearest_distances(peer: Peer, file: str, images: list[Path]) -> Any:
    """Their scores with num_neighbors = 1: the largest distance of a patch to its nearest row, as ours."""
    peer.ask("open_model", key="nearest", kind="torch", file=file, neighbours=1)
    scores = [peer.ask("predict", key="nearest", image=str(path))["score"] for path in images]
    peer.ask("close_model", key="nearest")
    return np.array(scores)


def same_pixels(peer: Peer, place: Place, rows: int, images: int) -> Row:
    """Agreement of our fp32 on lossless images of the model's size, which nobody has to resize."""
    copies = []
    for path in place.files.test[:images]:
        copies.append(place.folder / f"{path.stem}.png")
        Image.fromarray(frame_of(path, place.bundle.manifest.preprocess)).save(copies[-1])
    theirs = nearest_distances(peer, exported(peer, place, rows)["torch"], copies)
    with Detector.load(bundle_with(place, rows), "fp32", threads=1) as detector:
        ours = np.array([detector(path).score for path in copies])
    return {"bank": rows, "images": images} | agreement(ours, theirs)


def bundle_with(place: Place, rows: int) -> Bundle:
    """A bundle with one recipe a precision, named by it, of a bank of that size."""
    folder = place.folder / f"bundle-{rows}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(place.bundle.path, folder)
    bundle = Bundle.open(folder)
    for precision in bundle.manifest.precisions:
        bundle = bundle.add_recipe(recipe_of(place, precision, rows))
    return bundle


def recipe_of(place: Place, precision: str, rows: int) -> Recipe:
    """A recipe with the very bank that anomalib is given: no whitening, no groups, raw distances as scores."""
    bank, encoder = place.bank(precision, rows), place.bundle.manifest.encoder
    mean, spec = bank.mean(axis=0), place.bundle.manifest.graph(precision, "patchcore")
    arrays = neutral_inputs("patchcore", encoder) | {
        "patch_mean": mean,
        "patch_projection": np.eye(encoder.patch_dim, dtype=np.float32),
        "bank": bank_columns(bank - mean, np.zeros(rows), 1),
    }
    return Recipe(
        name=precision, scorer="patchcore", precision=precision,
        graph_sha256=place.bundle.manifest.files[spec.file].sha256, backend="onnxruntime", good_images=KNOWN,
        group_sizes=(KNOWN,), threshold=1e9, false_alarm=0.5, false_alarm_note="none", seed=0,
        created_with="vs_anomalib", arrays=arrays, calibration_scores=np.zeros(1, np.float32),
    )  # fmt: skip


def latency(peer: Peer, place: Place, rows: int, images: int) -> list[Row]:
    """A row a contender: times, ratios to it, and agreement, for one bank."""
    made = exported(peer, place, rows)
    files, labels = place.files.test[:images], place.files.labels[:images]
    nearest = nearest_distances(peer, made["torch"], files)
    runs: dict[str, Callable[[Path], Row]] = {}
    for kind in ("torch", "openvino"):
        peer.ask("open_model", key=kind, kind=kind, file=made[kind])
        runs[f"anomalib {kind}"] = lambda path, kind=kind: peer.ask("predict", key=kind, image=str(path))
    detectors = open_detectors(place, rows)
    runs |= {name: lambda path, one=one: judged(one, path) for name, one in detectors.items()}
    done = turns(runs, files)
    for kind in ("torch", "openvino"):
        peer.ask("close_model", key=kind)
    for detector in detectors.values():
        detector.close()
    common = {"encoder": ENCODER, "size": place.size, "bank": rows, "images": images}
    return [common | {"contender": name} | summary(done, name, nearest, labels) for name in runs]


def open_detectors(place: Place, rows: int) -> dict[str, Detector]:
    """Ours: both precisions as they come, and fp32 with the search left in the graph."""
    bundle = bundle_with(place, rows)
    opened = {f"orinspect {p}": Detector.load(bundle, p, threads=1) for p in bundle.manifest.precisions}
    fewest, searching.FEWEST_PAIRS = searching.FEWEST_PAIRS, sys.maxsize
    opened["orinspect fp32 flat"] = Detector.load(bundle, "fp32", threads=1)
    searching.FEWEST_PAIRS = fewest
    return opened


def judged(detector: Detector, path: Path) -> Row:
    """Score and map of a file by ours, as anomalib_peer.py's `predict`."""
    wall, cpu = time.perf_counter(), time.process_time()
    verdict = detector(path)
    times = {"wall_ms": (time.perf_counter() - wall) * 1e3, "cpu_ms": (time.process_time() - cpu) * 1e3}
    assert verdict.anomaly_map is not None
    return times | {"score": verdict.score, "map": verdict.anomaly_map[::8, ::8].tolist()}


def turns(runs: dict[str, Callable[[Path], Row]], files: list[Path]) -> dict[str, list[Row]]:
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


def summary(done: dict[str, list[Row]], name: str, nearest: Any, labels: Any) -> Row:
    mine = {key: np.array([row[key] for row in done[name]]) for key in ("cpu_ms", "wall_ms", "score", "map")}
    flat = {key: np.array([row[key] for row in done["orinspect fp32 flat"]]) for key in ("score", "map")}
    row: Row = {key: spread(mine[key]) for key in ("cpu_ms", "wall_ms")}
    for kind in ("torch", "openvino"):
        theirs = np.array([r["cpu_ms"] for r in done[f"anomalib {kind}"]])
        low, middle, high = np.quantile(theirs / mine["cpu_ms"], [0.1, 0.5, 0.9])
        row[f"times_as_fast_as_{kind}"] = {"median": middle, "low": low, "high": high}
    row |= agreement(mine["score"], nearest)
    row["auroc"] = metrics.auroc(labels, mine["score"])
    if name.startswith("orinspect"):
        pairs = zip(mine["map"], flat["map"], strict=True)
        row["map_correlation_with_flat"] = float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]))
        row["score_difference_to_flat"] = float(np.abs(mine["score"] / flat["score"] - 1).max())
    return row


def agreement(ours: Any, theirs: Any) -> Row:
    return {
        "rank_correlation": metrics.spearman(ours, theirs),
        "largest_score_difference": float(np.abs(ours / theirs - 1).max()),
    }


def spread(values: Any) -> Row:
    return {"min": float(values.min()), "median": float(np.median(values)), "p99": float(np.quantile(values, 0.99))}


def compare_metrics(peer: Peer) -> Row:
    """Largest difference of AUROC, AP and best F1 over random label and score lists, with ties and without."""
    rng, largest = np.random.default_rng(0), dict.fromkeys(("auroc", "average_precision", "f1_max"), 0.0)
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
    share = 0.025
    flat = place.patches["fp32"].reshape(-1, place.patches["fp32"].shape[2])
    points = flat[np.sort(np.random.default_rng(1).choice(len(flat), count, replace=False))]
    points = np.ascontiguousarray(points - points.mean(axis=0))
    np.save(place.folder / "points.npy", points)
    start = time.process_time()
    ours = greedy_k_centre(points, int(count * share), first=0)
    seconds = time.process_time() - start
    theirs = peer.ask("coreset", points=str(place.folder / "points.npy"), share=share, first=0)
    kept = points[theirs["picks"]]
    nearest = (kept**2).sum(1) - 2 * points @ kept.T
    radius = float(np.sqrt(np.maximum(nearest.min(axis=1) + (points**2).sum(1), 0).max()))
    return {
        "points": count, "picks": len(kept), "same_picks": int((ours.indices == theirs["picks"]).sum()),
        "our_cpu_s": seconds, "their_cpu_s": theirs["cpu_s"], "times_as_fast": theirs["cpu_s"] / seconds,
        "our_radius": ours.radius, "their_radius": radius,
    }  # fmt: skip


OUR_START = """
import sys, time
from orinspect_edge_runtime import Detector
verdict = Detector.load(sys.argv[1], recipe=sys.argv[2], threads=1)(sys.argv[3])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.process_time(), int(peak.split()[1]) / 1024, verdict.score)
"""


def cold_starts(python: Path, place: Place, banks: list[int]) -> list[Row]:
    """CPU seconds and peak memory from the start of a process to its first score of a file: the least of three starts of
    ours for every bank, one of theirs for the first.
    """
    image, found = str(place.files.test[0]), []
    for rows in banks:
        for precision in place.bundle.manifest.precisions:
            command = [sys.executable, "-c", OUR_START, str(place.folder / f"bundle-{rows}"), precision, image]
            runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(3)]
            times, peaks = zip(*(map(float, run.stdout.split()[:2]) for run in runs), strict=True)
            costs = {"cpu_s": min(times), "peak_mb": max(peaks)}
            found.append({"contender": f"orinspect {precision}", "bank": rows} | costs)
    for kind, suffix in (("torch", "pt"), ("openvino", "xml")):
        file = place.folder / f"{place.size}-{banks[0]}" / "weights" / kind / f"model.{suffix}"
        with Peer(python, place.folder) as peer:
            imported = peer.ask("imports")
            peer.ask("open_model", key="x", kind=kind, file=str(file))
            peer.ask("predict", key="x", image=image)
            spent = peer.ask("spent")
        imports = {f"import_{name}": value for name, value in imported.items()}
        found.append({"contender": f"anomalib {kind}", "bank": banks[0]} | spent | imports)
    return found


def show(parts: dict[str, Row]) -> None:
    table = Table(
        "px", "bank", "contender", "CPU ms", "x torch", "x OpenVINO", "rank corr.", "score diff.", title="One core"
    )
    for row in (row for name, part in parts.items() if name.startswith("latency") for row in part["found"]):
        ratios = [f"{row[f'times_as_fast_as_{kind}']['median']:.1f}" for kind in ("torch", "openvino")]
        table.add_row(str(row["size"]), str(row["bank"]), row["contender"], f"{row['cpu_ms']['median']:.1f}", *ratios,
                      f"{row['rank_correlation']:.4f}", f"{row['largest_score_difference']:.1e}")  # fmt: skip
    Console(width=130).print(table)
    table = Table("contender", "bank", "CPU s", "peak MB", title="Process start to first score")
    for row in parts["start"]["found"]:
        table.add_row(row["contender"], str(row["bank"]), f"{row['cpu_s']:.2f}", f"{row['peak_mb']:.0f}")
    Console(width=130).print(table)
    for name in ("same pixels", "coreset", "metrics"):
        Console(width=130).print(name, parts[name]["found"])


if __name__ == "__main__":
    sys.exit(main())
