"""Does the loader keep a GPU busy? Images a second of wall clock: of the card alone, of the loader alone, of a run.

    python benchmarks/ssl_gpu.py            a few minutes on a machine with a GPU; writes benchmarks/results/ssl_gpu.json
    python benchmarks/ssl_gpu.py --quick    the first case, prints only

card: training steps of one batch that lies on the card, optimiser included, the host never waiting for a result. loader:
batches rendered by the worker processes and pinned, that nobody trains on. run: the loop of `orinspect pretrain` from
its tenth step on, its log included. lightly: its SimCLR example on the same card (see ssl_throughput.py),
with as many workers. A turn of each comes after the other, in rounds. A run cannot do more than the lesser of card and
loader: `share` is what it does of that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from revision import revision
from rich.console import Console
from rich.table import Table
from ssl_throughput import Case, Reference, reference_dataset, settings, write_images
from torch.utils.data import DataLoader, RandomSampler

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_train import budget, metrics_log
from orinspect_train.batches import Batches
from orinspect_train.checkpoint import Plan
from orinspect_train.heap import kept_memory
from orinspect_train.images import read_images
from orinspect_train.keeper import Keeper
from orinspect_train.pretrain import open_encoder, open_pretraining
from orinspect_train.processes import Processes
from orinspect_train.run_folder import METRICS
from orinspect_train.training import train, worker_count

RESULT = Path(__file__).parent / "results" / "ssl_gpu.json"
GPU = torch.device("cuda")
# Steps until the workers run and the card is warm.
WARMUP = 10
# Its workers begin together, so their batches come in bursts.
LIGHTLY_WARMUP, LIGHTLY_STEPS = 30, 45


@dataclass(frozen=True)
class GpuCase:
    """method, init: of the run. case: encoder, views, files, and the steps of a turn."""

    method: str
    case: Case
    init: str = "scratch"


CASES = (
    GpuCase("simclr", Case("tiny_resnet", 32, 256, (32, 32), ".png", 300)),
    GpuCase("simclr", Case("tiny_resnet", 64, 256, (64, 64), ".png", 150)),
    GpuCase("simclr", Case("resnet18", 224, 128, (480, 640), ".jpg", 60)),
    GpuCase("simclr", Case("tf_efficientnet_lite0", 224, 128, (480, 640), ".jpg", 60)),
    GpuCase("synthetic_defects", Case("tf_efficientnet_lite0", 192, 48, (480, 640), ".jpg", 150), "imagenet"),
)


@kept_memory()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(2, "ssl_gpu.py: this machine has no GPU that torch can use\n")
    conditions = measure_conditions(0) | {
        "commit": revision(),
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }
    found: list[dict[str, Any]] = []
    for case in CASES[:1] if chosen.quick else CASES:
        found.append(measure(case, chosen.rounds))
        show(found)
        if not chosen.quick:
            result = {"protocol": __doc__, "conditions": conditions, "cases": found}
            durable.write_bytes(chosen.out, json.dumps(result, indent=2).encode() + b"\n")


def measure(gpu_case: GpuCase, rounds: int) -> dict[str, Any]:
    """All figures of a case, by round."""
    case = gpu_case.case
    with tempfile.TemporaryDirectory(prefix="orinspect-gpu-") as folder:
        data = Path(folder) / "images"
        write_images(data, case)
        ours = Ours(gpu_case, data, Path(folder))
        turns: dict[str, Callable[[], float]] = {"card": ours.card, "loader": ours.loader, "run": ours.run}
        if gpu_case.method == "simclr":
            turns["lightly"] = reference(data, case, ours.workers)
        rates: dict[str, list[float]] = {name: [] for name in turns}
        for _, (name, turn) in itertools.product(range(rounds), turns.items()):
            rates[name].append(round(turn(), 1))
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    return {
        "method": gpu_case.method,
        "case": asdict(case),
        "workers": ours.workers,
        "precision": ours.precision,
        "images_per_second": rates,
        "share": round(medians["run"] / min(medians["card"], medians["loader"]), 3),
    }


class Ours:
    """The product's loop, and its halves."""

    def __init__(self, gpu_case: GpuCase, data: Path, folder: Path) -> None:
        self.case, self.folder = gpu_case.case, folder
        self.config = settings(self.case, gpu_case.method, gpu_case.init)
        self.workers = worker_count(self.config, "gpu")
        self.images = read_images(data, self.config)
        self.module = open_pretraining(self.config, open_encoder(self.config), self.images)
        self.precision = budget.probe_speed(self.module, self.images.pixels, self.config, GPU).precision
        (folder / "checkpoints").mkdir()

    def card(self) -> float:
        """Images a second of steps whose batch is there already."""
        module = self.module.to(device=GPU, memory_format=torch.channels_last).train()
        optimizer = module.configure_optimizers()["optimizer"]
        batch = {name: value.to(GPU) for name, value in self._batches(1)[0].items()}

        def step() -> None:
            with torch.autocast("cuda", torch.bfloat16, enabled=self.precision == "bf16"):
                loss = module.training_step(batch, 0)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return self.case.batch * _steps_per_second(step, WARMUP, self.case.steps)

    def loader(self) -> float:
        """Images a second of batches that nobody trains on."""
        batches = iter(self._batches(WARMUP + self.case.steps).loader(self.workers, pin=True))
        return self.case.batch * _steps_per_second(lambda: next(batches), WARMUP, self.case.steps)

    def run(self) -> float:
        """Images a second of the loop of `orinspect pretrain`."""
        # The last one writes the checkpoint of a whole run.
        steps = WARMUP + self.case.steps + 1
        self.module.steps = steps
        metrics_log.start_log(self.folder / METRICS, 0)
        plan = Plan(steps, self.precision, self.case.batch, 1, self.images.digest, {}, steps)
        clock = Clock(self.folder, plan, self.config)
        train(self.module.train(), self.images.pixels, clock, Processes(), accelerator="gpu")
        return self.case.steps * self.case.batch / (clock.ends[-2] - clock.ends[WARMUP - 1])

    def _batches(self, count: int) -> Batches:
        return Batches(
            self.images.pixels, self.module.method.render, batch_size=self.case.batch, seed=0, first=0, last=count
        )


class Clock(Keeper):
    """The keeper of a run, which also notes when each step ended."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ends: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Called by the trainer after each step."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if len(self.ends) + 1 in (WARMUP, self.plan.steps - 1):
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def reference(data: Path, case: Case, workers: int) -> Callable[[], float]:
    """lightly's own training loop, in bf16: a turn gives its images a second."""
    dataset, model = reference_dataset(data, case), Reference(case, GPU)
    # Without an end: workers that begin every pass anew would idle.
    sampler = RandomSampler(dataset, replacement=True, num_samples=10**9)
    loader = DataLoader(dataset, case.batch, sampler=sampler, num_workers=workers, pin_memory=True)

    def turn() -> float:
        batches = iter(loader)

        def step() -> None:
            views = [view.to(GPU, non_blocking=True) for view in next(batches)[0]]
            with torch.autocast("cuda", torch.bfloat16):
                loss = model.loss(*views)
            model.learn(loss)

        return case.batch * _steps_per_second(step, LIGHTLY_WARMUP, LIGHTLY_STEPS)

    return turn


def _steps_per_second(step: Callable[[], Any], warmup: int, steps: int) -> float:
    for _ in range(warmup):
        step()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    torch.cuda.synchronize()
    return steps / (time.perf_counter() - begin)


def show(found: list[dict[str, Any]]) -> None:
    table = Table("method, encoder, pixels", "card img/s", "loader", "run", "share", "lightly")
    for one in found:
        medians = {name: f"{np.median(rates):,.0f}" for name, rates in one["images_per_second"].items()}
        table.add_row(
            f"{one['method']}, {one['case']['encoder']}, {one['case']['size']}",
            *(medians[name] for name in ("card", "loader", "run")),
            f"{one['share']:.2f}",
            medians.get("lightly", ""),
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
