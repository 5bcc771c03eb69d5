"""Big jobs: memory, speed and disk of `orinspect evaluate` over many images, what a kill costs, and Ray against one process.

    python benchmarks/big_jobs.py            writes benchmarks/results/big_jobs.json
    python benchmarks/big_jobs.py --ray      only the part on Ray; the others stay as they were
    python benchmarks/big_jobs.py --quick    a tenth of the images, without Ray; prints only

The tests' bundle (a real graph of means over cells, 32x32 pixels, patchcore) judges links to 44 pictures, every fiftieth of
them with a mask: so little work an image that what is measured is what orinspect adds. `evaluate --scores FILE.parquet` runs
as its user runs it; memory is the largest resident set, disk the largest sum of the parts' files that was seen. Resume: the
process is killed (SIGKILL) when half of the parts are there, and the same command given again; its result must be equal.
Ray: a cluster of one and of two CPUs, started with `ray start` beforehand; the start of the workers counts. `two hosts` (as
root): network namespaces with an address each; the command runs on the one that has Ray's head and no CPUs, the work is
done on the other.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from ray_cluster import one_host, two_hosts
from revision import revision
from watch_line import RECIPE, tiny_bundle

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.evaluate import PART_IMAGES
from orinspect_edge_runtime.parts import beside

RESULT = Path(__file__).parent / "results/big_jobs.json"
EVALUATE = [sys.executable, "-c", "from orinspect_edge_runtime.cli import main; main()", "evaluate"]
MASKED_EVERY = 50
EQUAL = ("auroc", "auroc_interval", "intervals", "localisation", "detections_by_kind", "false_alarms", "skipped")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ray", action="store_true")
    chosen = parser.parse_args()
    quick, sizes = chosen.quick, (1_000, 10_000) if chosen.quick else (10_000, 100_000)
    conditions = measure_conditions(1) | {"commit": revision()}
    with tempfile.TemporaryDirectory(prefix="orinspect-big-") as name:
        place = Path(name)
        bundle, test = tiny_bundle(place)
        if chosen.ray:
            result = json.loads(RESULT.read_bytes()) | {"protocol": __doc__}
            result["ray"] = on_ray(bundle, linked(place / "data", test, sizes[0])) | {"conditions": conditions}
            told(result, quick)
            return
        result = {"protocol": __doc__, "conditions": conditions}
        data = [linked(place / f"data-{size}", test, size) for size in sizes]
        few, many = (run(bundle, one) for one in data)
        result["evaluate"] = [few.figures(), many.figures()]
        result["bytes_an_image_more"] = round((many.rss - few.rss) / (many.images - few.images))
        told(result, quick)
        result["resume"] = resumed(bundle, data[0], few)
        told(result, quick)
        if not quick:
            result["ray"] = on_ray(bundle, data[0])
            told(result, quick)


def told(result: dict[str, Any], quick: bool) -> None:
    """Show what there is so far, and unless `quick` write it."""
    result["conditions"]["load_after"] = round(os.getloadavg()[0], 2)
    print(json.dumps({key: value for key, value in result.items() if key != "protocol"}, indent=2), flush=True)
    if not quick:
        durable.write_bytes(RESULT, json.dumps(result, indent=2).encode() + b"\n")


def linked(root: Path, pictures: Path, count: int) -> Path:
    """A dataset of so many links to a few pictures; the defective ones have masks."""
    good, bad = (sorted(pictures.glob("*.png"))[first::2] for first in (0, 1))
    for folder in ("test/good", "test/blot", "ground_truth/blot"):
        (root / folder).mkdir(parents=True)
    mask = np.zeros((40, 36), np.uint8)
    mask[10:22, 12:24] = 255
    Image.fromarray(mask).save(root / "mask.png")
    for number in range(count):
        if number % MASKED_EVERY:
            (root / f"test/good/{number:07d}.png").symlink_to(good[number % len(good)])
        else:
            (root / f"test/blot/{number:07d}.png").symlink_to(bad[number % len(bad)])
            (root / f"ground_truth/blot/{number:07d}_mask.png").symlink_to(root / "mask.png")
    return root


class Ran:
    """An evaluate that ended, or was killed: seconds, peak memory, disk, what it printed."""

    def __init__(self, images: int, wall: float, usage: resource.struct_rusage, disk: int, out: bytes) -> None:
        self.images, self.wall, self.disk, self.out = images, wall, disk, out
        self.cpu, self.rss = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024

    def figures(self) -> dict[str, float]:
        """For the result."""
        return {
            "images": self.images,
            "wall_s": round(self.wall, 2),
            "cpu_s": round(self.cpu, 2),
            "images_per_cpu_s": round(self.images / self.cpu),
            "peak_rss_mb": round(self.rss / 1e6, 1),
            "parts_disk_mb": round(self.disk / 1e6, 2),
        }

    def told(self) -> dict[str, Any]:
        """The figures that must not depend on how it ran."""
        values = json.loads(self.out)
        return {name: values[name] for name in EQUAL}


def run(
    bundle: Path,
    data: Path,
    *options: str,
    kill_at: int | None = None,
    env: dict[str, str] | None = None,
    on: Sequence[str] = (),
) -> Ran:
    """Evaluate. kill_at: number of parts at which it is killed. on: what is put before the command to run it on a host."""
    scores = bundle.parent / "scores.parquet"
    command = [*on, *EVALUATE, str(bundle), str(data), "--recipe", RECIPE, "--threads", "1", "--json", *options]
    images, disk = sum(1 for _ in data.glob("test/*/*.png")), 0
    with tempfile.TemporaryFile() as out:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--scores", str(scores)], stdout=out, stderr=subprocess.DEVNULL, env=os.environ | (env or {})
        )
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            files = list(beside(scores).glob("*.npz"))
            disk = max(disk, sum(size_of(file) for file in files))
            if kill_at is not None and len(files) >= kill_at:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.02)
        wall = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == (0 if kill_at is None else -signal.SIGKILL), process.returncode
        out.seek(0)
        return Ran(images, wall, usage, disk, out.read())


def size_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def resumed(bundle: Path, data: Path, whole: Ran) -> dict[str, Any]:
    """CPU seconds of a run that was killed halfway and of the one that went on, against `whole`, which was not killed."""
    killed = run(bundle, data, kill_at=math.ceil(whole.images / PART_IMAGES / 2))
    again = run(bundle, data)
    return {
        "cpu_s": {"whole": round(whole.cpu, 2), "killed": round(killed.cpu, 2), "again": round(again.cpu, 2)},
        "cpu_ratio": round((killed.cpu + again.cpu) / whole.cpu, 3),
        "equal": whole.told() == again.told(),
    }


def on_ray(bundle: Path, data: Path) -> dict[str, Any]:
    """Wall seconds on clusters, each beside one process just before."""
    result: dict[str, Any] = {}
    for name, cluster in {"1 CPU": one_host(1), "2 CPUs": one_host(2), "two hosts": two_hosts(2)}.items():
        with cluster as (env, on):
            local, ray = run(bundle, data), run(bundle, data, "--engine", "ray", env=env, on=on)
            result[name] = {
                "local_s": round(local.wall, 2),
                "ray_s": round(ray.wall, 2),
                "wall_ratio": round(ray.wall / local.wall, 2),
                "equal": local.told() == ray.told(),
            }
    return result


if __name__ == "__main__":
    main()
