"""Training throughput against lightly's reference loop: same method (SimCLR), encoder, batch and one core, in one run.

    python benchmarks/ssl_throughput.py            about 15 minutes; writes benchmarks/results/ssl_throughput.json
    python benchmarks/ssl_throughput.py --quick    the 32-pixel case, about a minute; prints only

Reference: lightly's SimCLR example as it stands: LightlyDataset of a folder, SimCLRTransform (Pillow), DataLoader, an
encoder in torch's default layout and float32, SimCLRProjectionHead, NTXentLoss, AdamW. Ours: the loop of `orinspect
pretrain`, with the policy `photo`, which makes the same changes (crop to 20 %, mirror, colours, gray, blur), logging and
checkpoints included, once in fp32 and once in the precision that its own probe chose.

The three take turns in rounds within one process bound to one core, and are timed by its processor seconds, so other
work on the machine disturbs them little and alike. What each does once (imports, and for ours decoding all images) is
not counted; `read_ms` says what decoding an image once costs. The loader's own rate is that of batches nobody trains on.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightly.data import LightlyDataset
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from revision import revision
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_train import budget, metrics_log
from orinspect_train.batches import Batches
from orinspect_train.checkpoint import Plan
from orinspect_train.config import PretrainConfig
from orinspect_train.heap import kept_memory
from orinspect_train.images import read_images
from orinspect_train.keeper import Keeper
from orinspect_train.pretrain import open_encoder, open_pretraining
from orinspect_train.processes import Processes
from orinspect_train.run_folder import METRICS
from orinspect_train.training import train

RESULT = Path(__file__).parent / "results" / "ssl_throughput.json"
# Images on disk; the loops pass over them again and again.
IMAGES = 256


@dataclass(frozen=True)
class Case:
    """size: of the views, pixels. source: height and width of the files. suffix: .png or .jpg. steps: in one turn."""

    encoder: str
    size: int
    batch: int
    source: tuple[int, int]
    suffix: str
    steps: int


# The most telling ones first: the result is written after each.
CASES = (
    Case("tiny_resnet", 32, 256, (32, 32), ".png", 4),
    Case("tf_efficientnet_lite0", 224, 16, (480, 640), ".jpg", 1),
    Case("tiny_resnet", 64, 128, (64, 64), ".png", 4),
    Case("resnet18", 224, 16, (480, 640), ".jpg", 1),
    Case("resnet10t", 32, 256, (32, 32), ".png", 2),
    Case("resnet10t", 64, 128, (64, 64), ".png", 2),
)


@kept_memory()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)))
    chosen = parser.parse_args()
    os.sched_setaffinity(0, {chosen.core})
    torch.set_num_threads(1)
    conditions = measure_conditions(1) | {"commit": revision(), "rounds": chosen.rounds}
    found: list[dict[str, Any]] = []
    for case in CASES[:1] if chosen.quick else CASES:
        found.append(measure(case, 3 if chosen.quick else chosen.rounds))
        show(found)
        if not chosen.quick:
            result = {"protocol": __doc__, "conditions": conditions, "cases": found}
            durable.write_bytes(RESULT, json.dumps(result, indent=2).encode() + b"\n")


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """All figures of a case: images a second and core by loop and round, the loaders' rates, ratios to the reference."""
    with tempfile.TemporaryDirectory(prefix="orinspect-throughput-") as folder:
        data = Path(folder) / "images"
        write_images(data, case)
        loops: dict[str, Callable[[], int]] = {"lightly": reference(data, case)}
        ours = Ours(data, case, Path(folder))
        loops |= {"ours fp32": lambda: ours.turn("fp32"), "ours": lambda: ours.turn(ours.precision)}
        rates: dict[str, list[float]] = {name: [] for name in loops}
        for number in range(rounds + 1):
            for name, turn in loops.items():
                rate = per_second(turn)
                # The first round warms up.
                if number:
                    rates[name].append(round(rate, 1))
        loaders = {"lightly": per_second(reference_loader(data, case)), "ours": per_second(ours.load)}
    ratios = {name: np.divide(rates[name], rates["lightly"]) for name in loops if name != "lightly"}
    return {
        "case": asdict(case),
        "precision": ours.precision,
        "images_per_second": rates,
        "loader_images_per_second": {name: round(rate, 1) for name, rate in loaders.items()},
        "read_ms": round(ours.read_ms, 2),
        "ratio": {
            name: dict(zip(("least", "median", "most"), np.quantile(found, (0, 0.5, 1)).round(2).tolist(), strict=True))
            for name, found in ratios.items()
        },
    }  # fmt: skip


def per_second(turn: Callable[[], int]) -> float:
    """Images a processor second of a function that says how many it did."""
    begin = time.process_time()
    images = turn()
    return images / (time.process_time() - begin)


def write_images(folder: Path, case: Case) -> None:
    """Coloured clouds with some grain: neither so smooth nor so noisy that decoding them would be untypical."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    height, width = case.source
    for number in range(IMAGES):
        coarse = Image.fromarray(rng.integers(40, 215, (9, 12, 3), np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        pixels = np.asarray(coarse, np.float32) + rng.normal(0, 6, (height, width, 1)).astype(np.float32)
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{number:04d}{case.suffix}", quality=90)


def reference_dataset(data: Path, case: Case) -> LightlyDataset:
    """The images with lightly's transform. At small sizes without blur, as lightly advises for them."""
    transform = SimCLRTransform(input_size=case.size, gaussian_blur=0.5 if case.size > 64 else 0.0)
    return LightlyDataset(input_dir=str(data), transform=transform)


def reference_batches(data: Path, case: Case) -> Iterator[Any]:
    """Batches of lightly's loader, without an end."""
    dataset = reference_dataset(data, case)
    while True:
        yield from DataLoader(dataset, batch_size=case.batch, shuffle=True, drop_last=True)


def reference_loader(data: Path, case: Case) -> Callable[[], int]:
    """A turn of nothing but loading."""
    batches = reference_batches(data, case)

    def turn() -> int:
        return sum(len(next(batches)[0][0]) for _ in range(case.steps))

    return turn


class Reference:
    """The model and the step of lightly's own training loop."""

    def __init__(self, case: Case, device: torch.device) -> None:
        torch.manual_seed(0)
        # The same trunk; lightly's example pools it by the mean, which is cheaper than our three statistics.
        self.trunk = open_encoder(settings(case)).trunk.to(device).train()
        self.head = SimCLRProjectionHead(self.trunk.feature_info.channels()[-1], 512, 128).to(device)
        self.optimizer = torch.optim.AdamW([*self.trunk.parameters(), *self.head.parameters()], lr=1e-3)
        self.criterion = NTXentLoss(temperature=0.1)

    def loss(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Of two views float32 [B, 3, H, W] of the same images."""
        value: torch.Tensor = self.criterion(
            *(self.head(self.trunk(view)[-1].mean((2, 3))) for view in (first, second))
        )
        return value

    def learn(self, loss: torch.Tensor) -> None:
        """The rest of the step."""
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()


def reference(data: Path, case: Case) -> Callable[[], int]:
    """A turn of lightly's own training loop."""
    model, batches = Reference(case, torch.device("cpu")), reference_batches(data, case)

    def turn() -> int:
        for _ in range(case.steps):
            model.learn(model.loss(*next(batches)[0]))
        return case.steps * case.batch

    return turn


def settings(case: Case, method: str = "simclr", init: str = "scratch") -> PretrainConfig:
    return PretrainConfig(
        method=method, encoder=case.encoder, init=init, size=case.size, batch_size=case.batch, policy="photo"
    ).resolved()


class Ours:
    """The product's loop on the same folder."""

    def __init__(self, data: Path, case: Case, folder: Path) -> None:
        self.case, self.folder, self.config = case, folder, settings(case)
        begin = time.process_time()
        self.images = read_images(data, self.config)
        self.read_ms = 1000 * (time.process_time() - begin) / IMAGES
        self.module = open_pretraining(self.config, open_encoder(self.config), self.images)
        self.precision = budget.probe_speed(self.module, self.images.pixels, self.config, torch.device("cpu")).precision
        (folder / "checkpoints").mkdir()

    def turn(self, precision: str) -> int:
        self.module.steps = self.case.steps
        metrics_log.start_log(self.folder / METRICS, 0)
        plan = Plan(self.case.steps, precision, self.case.batch, 1, self.images.digest, {}, self.case.steps)
        keeper = Keeper(self.folder, plan, self.config)
        train(self.module.train(), self.images.pixels, keeper, Processes(), accelerator="cpu")
        return self.case.steps * self.case.batch

    def load(self) -> int:
        batches = Batches(
            self.images.pixels, self.module.method.render, batch_size=self.case.batch, seed=0, first=0, last=self.case.steps
        )  # fmt: skip
        return sum(len(batch["first"]) for batch in batches.loader(0))


def show(found: list[dict[str, Any]]) -> None:
    columns = (
        "encoder, pixels",
        "lightly img/s",
        "ours fp32",
        "ours",
        "ratio fp32",
        "ratio (least to most)",
        "loaders img/s",
    )
    table = Table(*columns, title="SimCLR, images a second of one core, medians of the rounds")
    for one in found:
        medians = [f"{np.median(rates):.1f}" for rates in one["images_per_second"].values()]
        ratio, loaders = one["ratio"]["ours"], one["loader_images_per_second"]
        table.add_row(
            f"{one['case']['encoder']}, {one['case']['size']}",
            *medians[:2],
            f"{medians[2]} ({one['precision']})",
            f"{one['ratio']['ours fp32']['median']:.2f}",
            f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})",
            f"{loaders['lightly']:.0f}, {loaders['ours']:.0f}",
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
