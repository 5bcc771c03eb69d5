"""anomalib and AnomaVision against orinspect: the same encoder, the same memory bank, the same JPEG files, one core.

    python benchmarks/vs_anomalib.py            the whole of it; writes benchmarks/results/vs_anomalib.json
    python benchmarks/vs_anomalib.py --quick    two small banks, 10 images, about a minute; prints only
    python benchmarks/vs_anomalib.py --parts "product padim"    only these parts, by name, with commas; prints only

Every part of the result is measured once and kept in the cache with its conditions; a run that was stopped goes on.
The first run installs anomalib and AnomaVision (Python 3.12 at most), each into a virtual environment under --cache (some
gigabytes each; `--peer` and `--anomavision` name those that exist). Where AnomaVision cannot be installed its parts say so.

The same bank (peer_patchcore.py). Encoder: ResNet-18, stages 2 and 3 as anomalib joins them (patches of 384 numbers,
28x28 at 224 pixels, 32x32 at 256), random weights whose batch statistics fit the images: the arithmetic is that of any
weights, the AUROC says little and is the same on both sides. Images: ELPV solar cells as JPEG files of 900x900. Banks:
patches of good cells, up to 20,000 rows greedy coresets of three times as many, beyond that random draws. A bank for
int8-cpu is made of the same patches as that graph sees them.

The products (peer_product.py). EfficientNet-Lite0 with ImageNet weights on both sides, each as its users run it, fitted on
the same 200 good cells and tested on 200 good and 200 defective ones: our PatchCore (whitened, small bank) against theirs
with 20,000 rows, our PaDiM against theirs. The definitions differ: it is accuracy and latency that are compared.
AnomaVision: ResNet-18 on both sides, with the same random weights; its own torch, onnxruntime and OpenVINO backends. Its
maps stay at 224 pixels, ours and anomalib's are brought to the 900 of the file. Its OpenVINO may compute in bfloat16.

Both processes are bound to one core and take turns image by image, in another order each time. Times are from the file
to score and full-size map. `cpu_ms` is the processor time of the process, which neighbours on a busy machine disturb
least; ratios are medians over images of theirs over ours, with the 10th and 90th percentile. `flat` is our graph
with the search inside of it. Agreement is with their scores of num_neighbors = 1, which are the same definition: on the
JPEG files, which each side decodes and resizes in its own way, and on lossless files of the model's size, which leave
only the arithmetic, there also with their default of nine, by which the score is weighed. `start` is from the start of a
process to its first score, and the peak of its resident memory; modules have their bytecode, as pip leaves them.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peer_arithmetic import compare_coresets, compare_metrics
from peer_images import image_files
from peer_patchcore import latency, same_pixels, starts
from peer_place import Place
from peer_process import LIBRARIES, ONE_THREAD, Peer, peer_environment
from peer_product import Product, compare_products
from peer_turns import RATIO, Row
from revision import revision
from rich.console import Console
from rich.table import Table

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.conditions import measure_conditions

RESULT = Path(__file__).parent / "results" / "vs_anomalib.json"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "orinspect" / "vs_anomalib"
# Model's size, rows of the bank, test images.
PLAN = ((224, 20000, 16), (224, 60000, 10), (224, 5000, 16), (224, 1000, 12), (256, 20000, 12), (224, 200000, 8))
QUICK = ((224, 1000, 10), (224, 5000, 10))
# Good images that the banks are made of, by the model's size (enough for the largest), and those a product is fitted on.
KNOWN, QUICK_KNOWN, FITTED = {224: 400, 256: 150}, {224: 40}, 200
TESTED, LABELLED, TURNS = 400, 200, 16
# AnomaVision's models by part: PaDiM as its config.yml and as its quick start have it, PatchCore by its defaults.
ANOMAVISION: dict[str, tuple[str, dict[str, Any]]] = {
    "anomavision padim": ("padim", {"layer_indices": [0], "feat_dim": 50}),
    "anomavision padim of three stages": ("padim", {"layer_indices": [0, 1, 2], "feat_dim": 100}),
    "anomavision patchcore": ("patchcore", {}),
}
UNTRAINED = ("resnet18", "scratch")
NOT_INSTALLED = "not_installed"
CONSOLE = Console(stderr=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--peer", type=Path, help="Python of an environment that has anomalib.")
    parser.add_argument("--anomavision", type=Path, help="Python of an environment that has AnomaVision.")
    parser.add_argument("--parts", help="names of parts, with commas; without it all")
    chosen = parser.parse_args()
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD)
    cache = chosen.cache / "quick" if chosen.quick else chosen.cache
    cache.mkdir(parents=True, exist_ok=True)
    python = chosen.peer or peer_environment(chosen.cache / "venv", "anomalib")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    kept = Kept(cache / RESULT.name, chosen.parts)
    with Peer(python, cache) as peer:
        if not chosen.quick:
            files = image_files(cache / "images", FITTED, TESTED + LABELLED)
            product = Product(cache / "product", files, TESTED)
            for scorer, make in (("patchcore", product.their_patchcore), ("padim", product.their_padim)):
                kept.part(f"product {scorer}", compare_products, peer, product, scorer, TURNS, make)
        compare_same_banks(kept, peer, python, cache, quick=chosen.quick)
    if not chosen.quick:
        compare_anomavision(kept, chosen.anomavision, cache, product)
    show(kept.parts)
    if not chosen.quick and not chosen.parts:
        durable.write_bytes(RESULT, kept.file.read_bytes())
    return 0


def compare_anomavision(kept: Kept, python: Path | None, cache: Path, besides: Product) -> None:
    lacking = [name for name in ANOMAVISION if kept.lacks(f"product {name}")]
    if not lacking:
        return
    product = Product(cache / "product-resnet18", image_files(cache / "images", FITTED, TESTED), TESTED, *UNTRAINED)
    try:
        python = python or peer_environment(cache / "venv-anomavision", "anomavision")
    except subprocess.CalledProcessError as error:
        reason = {NOT_INSTALLED: error.stderr.strip()[-500:]}
        for name in lacking:
            kept.part(f"product {name}", lambda: reason)
        return
    with Peer(python, cache, "anomavision") as peer:
        for name in lacking:
            scorer, options = ANOMAVISION[name]
            make = functools.partial(product.their_anomavision, scorer=scorer, name=name, **options)
            kept.part(f"product {name}", compare_products, peer, product, scorer, TURNS, make, python, besides)


def compare_same_banks(kept: Kept, peer: Peer, python: Path, cache: Path, *, quick: bool) -> None:
    plan, known = (QUICK, QUICK_KNOWN) if quick else (PLAN, KNOWN)

    @functools.cache
    def place(size: int) -> Place:
        files = image_files(cache / "images", known[size], 40)
        return Place.make(cache, size, files)

    kept.part("metrics", compare_metrics, peer)
    kept.part("same pixels", lambda: same_pixels(peer, place(224), 5000, 10 if quick else 16))
    kept.part("coreset", lambda: compare_coresets(peer, place(224), 4000 if quick else 20000))
    for size, rows, images in plan:
        kept.part(f"latency {size} {rows}", lambda s=size, r=rows, i=images: latency(peer, place(s), r, i))
        kept.part(f"start {size} {rows}", lambda s=size, r=rows: starts(peer, python, place(s), r))


class Kept:
    """Parts of a result in a file. Each is measured once: a run that was stopped goes on with the parts it lacks.

    chosen: names of the only parts that may be measured, with commas.
    """

    def __init__(self, file: Path, chosen: str | None = None) -> None:
        self.file, self._chosen = file, chosen and chosen.split(",")
        self.parts: dict[str, Row] = json.loads(file.read_text())["parts"] if file.exists() else {}

    def lacks(self, name: str) -> bool:
        """Whether a part is to be measured: it is not there, or then its library could not be installed."""
        there = name in self.parts and NOT_INSTALLED not in self.parts[name]["found"]
        return not there and (not self._chosen or name in self._chosen)

    def part(self, name: str, measure: Callable[..., Any], *arguments: Any) -> None:
        """Measure a part, with these arguments, if it lacks; its conditions and the commit are kept with it."""
        if not self.lacks(name):
            return
        CONSOLE.print(name)
        packages = {library: known.packages for library, known in LIBRARIES.items()}
        conditions = measure_conditions(1) | {"commit": revision(), "packages": packages}
        self.parts[name] = {"conditions": conditions, "found": measure(*arguments)}
        content = json.dumps({"protocol": __doc__, "parts": self.parts}, indent=2)
        durable.write_bytes(self.file, content.encode() + b"\n")


def show(parts: dict[str, Row]) -> None:
    console = Console(width=130)
    table = Table(
        "px", "bank", "contender", "CPU ms", "x torch", "x OpenVINO", "rank corr.", "score diff.", title="One core"
    )
    for row in _rows(parts, "latency"):
        table.add_row(str(row["size"]), str(row["bank"]), row["contender"], *_times(row),
                      f"{row['rank_correlation']:.4f}", f"{row['largest_score_difference']:.1e}")  # fmt: skip
    console.print(table)
    table = Table("contender", "bank", "CPU s", "peak MB", title="Process start to first score")
    for row in _rows(parts, "start"):
        table.add_row(row["contender"], str(row["bank"]), *_spent(row))
    console.print(table)
    for name in (name for name in parts if name.startswith("product")):
        show_product(console, name, parts[name]["found"])
    for name in ("same pixels", "coreset", "metrics"):
        if name in parts:
            console.print(name, parts[name]["found"])


def show_product(console: Console, name: str, found: Row) -> None:
    if NOT_INSTALLED in found:
        console.print(f"{name}: {NOT_INSTALLED}: {found[NOT_INSTALLED]}")
        return
    kinds = [key.removeprefix(RATIO) for key in found["rows"][0] if key.startswith(RATIO)]
    table = Table("contender", "CPU ms", *(f"x {kind}" for kind in kinds), "AUROC", "95 %", title=name)
    for row in found["rows"]:
        accuracy = (f"{row['auroc']:.3f}", "{:.3f} to {:.3f}".format(*row["auroc_interval"])) if "auroc" in row else ()
        table.add_row(row["contender"], *_times(row), *accuracy)
    console.print(table)
    for row in found.get("starts", []):
        console.print(row["contender"], "start: {} s, {} MB".format(*_spent(row)))


def _rows(parts: dict[str, Row], kind: str) -> list[Row]:
    return [row for name, part in parts.items() if name.startswith(kind) for row in part["found"]]


def _times(row: Row) -> list[str]:
    ratios = [value["median"] for key, value in row.items() if key.startswith(RATIO)]
    return [f"{value:.1f}" for value in (row["cpu_ms"]["median"], *ratios)]


def _spent(row: Row) -> tuple[str, str]:
    return f"{row['cpu_s']:.2f}", f"{row['peak_mb']:.0f}"


if __name__ == "__main__":
    sys.exit(main())
