"""`orinspect pretrain --advise`: is training worth it on these images, and with which method? A probe of two minutes.

Measured by one signal (alignment.py), on the same held-out images with the same drawn defects: raw pixels, the encoder
untrained and with the weights it starts from, and after a short training by each of a few methods. Nothing is written
but into a temporary folder. What fits into the time is found by measuring; what does not is left out and named.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_train import alignment, budget
from orinspect_train.alignment import Check, Scores
from orinspect_train.bfloat16 import faster_bfloat16
from orinspect_train.checkpoint import Plan
from orinspect_train.config import DAMAGE, DEFECT_METHODS, PretrainConfig
from orinspect_train.heap import kept_memory
from orinspect_train.images import ImageSet, read_images
from orinspect_train.keeper import Keeper
from orinspect_train.methods import complete
from orinspect_train.pretrain import open_encoder, open_pretraining, policy_of
from orinspect_train.processes import Processes
from orinspect_train.progress import Report
from orinspect_train.recommendation import Candidate, Interval, recommend
from orinspect_train.training import Pretraining, accelerator_here, device_here, train

IMAGENET_ENCODER = "tf_efficientnet_lite0"
MOST_IMAGES = 512
# What speed is measured on, and what a candidate is measured on at least.
FEW_IMAGES = 16
# More than a run keeps: here the interval counts, and the training is short.
HELD_OUT = 0.25
# Small batches give more steps; none of the methods below needs large ones.
BATCH = 16
# Of the time that is left: for reading images, and then for measuring candidates.
READ_SHARE, MEASURE_SHARE = 0.2, 0.4
# For the words at the end, and for what a training takes to start.
WORDS_SECONDS, START_SECONDS = 1.0, 1.0
# A check may take longer than the one before it: the machine may get busier.
CHECK_MARGIN = 1.2
# That budget.probe_speed takes in two precisions.
LOOK_STEPS = 2 * (1 + budget.PROBE_STEPS)
# Raw pixels: the side of a cell, pixels, and what it is brought to where patches are compared; else it is its mean.
CELL, CELL_SIDE = 16, 4
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Row:
    """A candidate as it is reported. auroc: by kind of drawn defect, empty if it failed. gain: over the start."""

    name: str
    steps: int
    auroc: dict[str, float]
    mean: Interval | None
    gain: Interval | None
    flattered: bool
    failed: str


@dataclass(frozen=True)
class Advice:
    """rows: by mean AUROC, highest first. left_out: methods that the time was too short for. choice: options of
    `orinspect pretrain` to go on with. images, held_out: numbers of them. seconds: all of it took."""

    measure: str
    images: int
    held_out: int
    minutes: float
    seconds: float
    rows: list[Row]
    left_out: list[str]
    words: list[str]
    choice: dict[str, Any]


@kept_memory()
def advise(
    data: Path, config: PretrainConfig, started: float, report: Report = lambda stage, share, text: None
) -> Advice:
    """Probe the candidates on the images below `data` within config.minutes, counted from `started` (time.monotonic()).

    Raises InputError (images, weights) and ConfigError.
    """
    config = replace(config, held_out=HELD_OUT, tensorboard=False)
    # What is wrong with the options is said before the images are read.
    open_encoder(complete(config))
    deadline = started + 60 * config.minutes - WORDS_SECONDS
    reading_ends = deadline - (1 - READ_SHARE) * (deadline - time.monotonic())
    few = replace(config, max_images=min(config.max_images, MOST_IMAGES))
    images = read_images(data, few, lambda share: report("images", share, ""), deadline=reading_ends)
    probe = _Probe(config, images, deadline, report)
    candidates = probe.candidates()
    found = recommend(candidates, config.seed)
    rows = [
        Row(
            one.name, one.steps, one.scores.alignment.auroc if one.scores else {}, found.means.get(one.name),
            found.gains.get(one.name), one.flattered, one.failed,
        )
        for one in candidates
    ]  # fmt: skip
    rows.sort(key=lambda row: -row.mean.value if row.mean else 1.0)
    return Advice(
        probe.check.anomalies.measure, len(images.pixels), len(probe.check.held_out), config.minutes,
        time.monotonic() - started, rows, probe.left_out, found.words, found.chosen.choice or {},
    )  # fmt: skip


def pretexts(config: PretrainConfig, policy: str) -> list[str]:
    """Methods to try, the configured one first; with options of its own, it alone. Turns tell nothing of images that
    may be turned."""
    if config.options:
        return [config.method]
    third = "rotation" if policy.endswith("_upright") else "byol"
    return list(dict.fromkeys([config.method, "synthetic_defects", "densecl", third]))[:3]


def pixel_patches(pixels: Pixels, *, gray: bool) -> NDArray[np.float32]:
    """Raw pixels as patch features: each cell of 16x16 pixels at 4x4, float32 [N, P, 16 or 48] of uint8 [N, H, W, 3]."""
    images = pixels[..., :1] if gray else pixels
    count, height, width, channels = images.shape
    step = CELL // CELL_SIDE
    small = images.reshape(count, height // step, step, width // step, step, channels).mean((2, 4), dtype=np.float32)
    cells = small.reshape(count, height // CELL, CELL_SIDE, width // CELL, CELL_SIDE, channels)
    patches = cells.transpose(0, 1, 3, 2, 4, 5).reshape(count, -1, CELL_SIDE * CELL_SIDE * channels)
    return np.asarray(patches / np.float32(255), np.float32)


def pixel_embedding(pixels: Pixels) -> NDArray[np.float32]:
    """Raw pixels as an embedding: the mean colour of each cell of 16x16 pixels, float32 [N, 3 P] of uint8 [N, H, W, 3]."""
    cells = pixel_patches(pixels, gray=False).reshape(len(pixels), -1, CELL_SIDE * CELL_SIDE, pixels.shape[3])
    return np.asarray(cells.mean(axis=2).reshape(len(pixels), -1), np.float32)


class _Probe:
    """The candidates of some images, one after the other."""

    def __init__(self, config: PretrainConfig, images: ImageSet, deadline: float, report: Report) -> None:
        self.config, self.images, self.deadline, self.report = config, images, deadline, report
        self.training = images.split(HELD_OUT).training
        self.left_out: list[str] = []
        self.methods = pretexts(config, policy_of(config, images))
        self.check, self.check_seconds = self._fit_check()

    def candidates(self) -> list[Candidate]:
        """All of them, from the simplest to the most laborious."""
        found = [self._start(choice, name) for name, choice in self._starts().items()]
        found.append(self._pixels())
        for number, method in enumerate(self.methods):
            candidate = self._pretext(method, self.left / (len(self.methods) - number))
            if candidate is None:
                self.left_out.append(method)
            else:
                found.append(candidate)
        return found

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    def _starts(self) -> dict[str, dict[str, Any]]:
        """Encoders that need no training: the configured one, what ImageNet taught the one whose weights are installed,
        and the configured one untrained."""
        config = self.config
        own = "untrained" if config.init == "scratch" else "ImageNet" if config.init == "imagenet" else config.init
        found: dict[str, dict[str, Any]] = {f"{config.encoder}, {own}": {"epochs": 0}}
        found.setdefault(
            f"{IMAGENET_ENCODER}, ImageNet", {"encoder": IMAGENET_ENCODER, "init": "imagenet", "epochs": 0}
        )
        found.setdefault(f"{config.encoder}, untrained", {"init": "scratch", "epochs": 0})
        return found

    def _start(self, choice: dict[str, Any], name: str) -> Candidate:
        try:
            module = self._open(replace(self.config, **choice))
        except (InputError, ImportError) as error:
            return Candidate(name, choice, None, failed=str(error))
        return Candidate(name, choice, self._scores(name, module))

    def _pixels(self) -> Candidate:
        anomalies = self.check.anomalies
        patches = partial(pixel_patches, gray=self.images.gray)
        features_of = patches if anomalies.scorer.has_map else pixel_embedding
        scores = alignment.measure(features_of, self.check.training, self.check.held_out, self.config.seed, anomalies)
        return Candidate("raw pixels", None, scores)

    def _pretext(self, method: str, seconds: float) -> Candidate | None:
        """The encoder after a training of so many seconds, its measurement included; None when too few steps fit."""
        end = time.monotonic() + seconds - CHECK_MARGIN * self.check_seconds - START_SECONDS
        options = self.config.options if method == self.config.method else {}
        batch = min(BATCH, self.config.batch_size, len(self.training))
        # A look at the speed takes steps too: none is taken where they would not fit.
        foreseen = budget.STEP_PASSES * batch * self.check_seconds / self.check.images
        if (LOOK_STEPS + budget.FEWEST_STEPS) * foreseen > end - time.monotonic():
            return None
        config = replace(self.config, method=method, options=options, batch_size=batch)
        module = self._open(config)
        speed = budget.probe_speed(module, self.training, config, device_here())
        steps = int((end - time.monotonic()) / speed.step_seconds)
        if steps < budget.FEWEST_STEPS:
            return None
        self.config = replace(self.config, precision=speed.precision)
        module.steps = steps
        plan = Plan(steps, speed.precision, batch, 1, "", {}, steps)
        choice, flattered = {"method": method}, method in DEFECT_METHODS
        with tempfile.TemporaryDirectory(prefix="orinspect-advise-") as folder:
            keeper = Keeper(Path(folder), plan, config, end, report=partial(self.report, method))
            try:
                done = train(module.train(), self.training, keeper, Processes(), accelerator=accelerator_here())
            except CheckFailed as error:
                return Candidate(method, choice, None, method, flattered=flattered, failed=str(error))
        return Candidate(method, choice, self._scores(method, module), method, done, flattered)

    def _open(self, config: PretrainConfig) -> Pretraining:
        config = complete(config)
        return open_pretraining(config, open_encoder(config), self.images)

    def _scores(self, name: str, module: Pretraining) -> Scores:
        self.report(name, 0.0, "")
        began = time.monotonic()
        scores = self.check.scores(module.to(device=device_here(), memory_format=torch.channels_last))
        if module.encoder.name == self.config.encoder:
            self.check_seconds = time.monotonic() - began
        self.report(name, 1.0, f"mean AUROC {scores.alignment.mean:.3f}")
        return scores

    def _fit_check(self) -> tuple[Check, float]:
        """A check of as many images as the time permits, and the seconds that it is foreseen to take."""
        training, held_out = self.images.split(HELD_OUT)
        module = self._open(self.config).to(device=device_here(), memory_format=torch.channels_last).eval()
        wanted = ("fp32", "bf16") if self.config.precision == "auto" else (self.config.precision,)
        seconds = {name: _encoding_seconds(module, training[:FEW_IMAGES], name) for name in wanted}
        precision = min(seconds, key=lambda name: seconds[name])
        count = len(self._starts()) + len(self.methods)
        affordable = MEASURE_SHARE * self.left / (count * seconds[precision])
        share = min(1.0, affordable / (alignment.MOST_FIT + 4 * alignment.MOST_HELD_OUT))
        training = training[: max(FEW_IMAGES, int(share * alignment.MOST_FIT))]
        held_out = held_out[: max(FEW_IMAGES, int(share * alignment.MOST_HELD_OUT))]
        check = Check(training, held_out, self.config.seed, precision, alignment.anomalies_of(DAMAGE, module.encoder))
        return check, check.images * seconds[precision]


def _encoding_seconds(module: Pretraining, pixels: Pixels, precision: str) -> float:
    """For an image, after a first time to warm up."""
    encode = alignment.in_batches(module.patches)
    with torch.autocast(module.device.type, torch.bfloat16, enabled=precision == "bf16"), faster_bfloat16():
        encode(pixels)
        began = time.monotonic()
        encode(pixels)
    return (time.monotonic() - began) / len(pixels)
