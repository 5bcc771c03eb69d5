"""`orinspect student`: trains a student on good images of a finished run's encoder, and says whether it finds more.

The features are computed once and kept, so that a step costs the student alone. A fifth of the images is held out: it
tells which of the weights to keep, and is what a recipe's threshold can later rest on. Whether to use the student is asked
without labels, of defects drawn on held-out images (alignment.py).
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.errors import CheckFailed, ConfigError
from orinspect_edge_runtime.learnt import fingerprint
from orinspect_train import alignment
from orinspect_train.augment import normalise
from orinspect_train.config import make_config
from orinspect_train.heap import kept_memory
from orinspect_train.images import ImageSet, read_images
from orinspect_train.probe_defects import PROBE_DEFECTS
from orinspect_train.progress import Report
from orinspect_train.run import load_encoder, read_config_text, save_encoder
from orinspect_train.run_folder import CONFIG, STUDENT, STUDENT_ENTRY, check_folder
from orinspect_train.student import Student, StudiedEncoder, to_bytes
from orinspect_train.training import device_here

BATCH, RATE, STEPS = 16, 2e-3, 400
HELD_OUT = 0.2
# Their features are held in half precision: 154 KB an image of 192 pixels with EfficientNet-Lite0.
MOST_IMAGES = 1500
# Of the training, between two looks at the held-out images.
CHECKS = 10
# Held-out images that a look is taken at; and images that the drawn defects are asked of.
MOST_TESTED, MOST_FIT, MOST_ASKED = 128, 192, 64
# Fewer steps explain nothing.
TIMED_STEPS, FEWEST_STEPS = 3, 20
ENCODED = 32
STEP_STREAM = 11
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Lesson:
    """The encoder's features of N images, half precision: its shallow stage [N, C, h, w], its patch map [N, D, r, c]."""

    stage: Tensor
    patches: Tensor


@dataclass(frozen=True)
class Taught:
    """What a training came to. learnt, held_out: numbers of images. unexplained: share of the variance of held-out
    images' patches that is left, unexplained_learnt of those it has learnt from. drawn_defects: AUROC on held-out images
    by PaDiM of the patches (`padim`) and of the residuals (`student`)."""

    run: str
    learnt: int
    held_out: int
    skipped: int
    steps: int
    seconds: float
    unexplained: float
    unexplained_learnt: float
    drawn_defects: dict[str, float]


@kept_memory()
def teach(
    run: Path,
    data: Path,
    out: Path,
    *,
    steps: int = STEPS,
    minutes: float | None = None,
    seed: int = 0,
    replace: bool = False,
    report: Report = lambda stage, share, text: None,
) -> Taught:
    """Train a student of the finished `run` on the good images below `data`, and publish encoder and student as `out`.

    minutes: wall clock of it all, instead of steps. Raises InputError (run, images, out), ConfigError (an encoder that no
    student fits, too few minutes), and CheckFailed when it explains nothing of unseen images; `out` is then as before.
    """
    start = time.monotonic()
    check_folder(out, resume=False, force=replace)
    encoder, record = load_encoder(run)
    config_text, images = read_config_text(run), _read_images(data, record["preprocess"], seed, report)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        studied = StudiedEncoder(encoder, Student(encoder)).to(device_here()).eval()
    school = School(studied, images, (record["mean"], record["std"]), seed, report)
    if minutes is not None:
        steps = school.steps_within(start + 60 * minutes - time.monotonic())
    unexplained = school.train(steps, report)
    if not unexplained < 1:
        raise CheckFailed(
            f"the student explains nothing of unseen images' patches, {out} was not written; give more images"
        )
    taught = Taught(
        run=str(out),
        learnt=len(school.training),
        held_out=len(school.held_out),
        skipped=len(images.skipped),
        steps=steps,
        seconds=0.0,
        unexplained=unexplained,
        unexplained_learnt=school.unexplained(school.lesson),
        drawn_defects=school.drawn_defects(report),
    )
    with durable.new_folder(out, replace=out.exists()) as folder:
        durable.write_bytes(folder / CONFIG, config_text)
        weights = to_bytes(studied.student)
        durable.write_bytes(folder / STUDENT, weights)
        entry = asdict(taught) | {
            "seed": seed,
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "images": sorted(map(fingerprint, school.training)),
        }
        save_encoder(folder, studied.encoder, record | {STUDENT_ENTRY: entry})
    return Taught(**(asdict(taught) | {"seconds": time.monotonic() - start}))


class School:
    """An encoder, its student, and what there is to learn. statistics: the encoder's mean and std of the pixels."""

    def __init__(
        self,
        studied: StudiedEncoder,
        images: ImageSet,
        statistics: tuple[list[float], list[float]],
        seed: int,
        report: Report,
    ) -> None:
        self._studied, self._seed = studied, seed
        self._device = next(studied.parameters()).device
        self._mean, self._std = (torch.tensor(values, device=self._device) for values in statistics)
        self.training, self.held_out = images.split(HELD_OUT)
        began = time.perf_counter()
        self.lesson = self._features(self.training, lambda share: report("features", share, ""))
        self._image_seconds = (time.perf_counter() - began) / len(self.training)
        self.test = self._features(self.held_out[:MOST_TESTED])
        studied.student.stage.fit(self.lesson.stage)
        studied.student.patches.fit(self.lesson.patches)

    def train(self, steps: int, report: Report) -> float:
        """Adam with a rate that falls as a cosine; keeps the weights that leave least unexplained, and returns that."""
        student, least = self._studied.student, math.inf
        optimizer = torch.optim.Adam(student.parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        best = copy.deepcopy(student.state_dict())
        for step in range(steps):
            self._step(student, optimizer, step)
            schedule.step()
            if (step + 1) % max(steps // CHECKS, 1) == 0 or step + 1 == steps:
                found = self.unexplained(self.test)
                if found < least:
                    least, best = found, copy.deepcopy(student.state_dict())
            if step % 10 == 0 or step + 1 == steps:
                report("training", (step + 1) / steps, f"unexplained {least:.3f}" if least < math.inf else "")
        student.load_state_dict(best)
        return least

    def steps_within(self, seconds: float) -> int:
        """Steps that fit, with the drawn defects after them; some are timed on a copy, which leaves the student as it is.

        Raises ConfigError when that is next to none, with what would do.
        """
        trial = copy.deepcopy(self._studied.student)
        optimizer = torch.optim.Adam(trial.parameters(), lr=RATE)
        self._step(trial, optimizer, 0)
        began = time.perf_counter()
        for step in range(TIMED_STEPS):
            self._step(trial, optimizer, step)
        step_seconds = (time.perf_counter() - began) / TIMED_STEPS
        asked = len(self.training[:MOST_FIT]) + (1 + len(PROBE_DEFECTS)) * len(self.held_out[:MOST_ASKED])
        left = seconds - 2 * asked * self._image_seconds
        if left < FEWEST_STEPS * step_seconds:
            missing = (FEWEST_STEPS * step_seconds - left) / 60
            raise ConfigError(f"reading and checking leave no time to train: pass {missing + 0.1:.1f} --minutes more")
        return int(left / step_seconds)

    @torch.no_grad()
    def unexplained(self, lesson: Lesson) -> float:
        """Share that the residuals have of the patches' squares, about the mean of those learnt from."""
        student, left, whole = self._studied.student, 0.0, 0.0
        for rows in torch.split(torch.arange(len(lesson.stage)), ENCODED):
            left += float(self._squares(student, lesson, rows).sum())
            whole += float(student.patches(lesson.patches[rows].to(self._device).float()).square().sum())
        return left / max(whole, 1e-12)

    def drawn_defects(self, report: Report) -> dict[str, float]:
        """Mean AUROC of PaDiM on drawn defects, of the patches and of the residuals; see alignment.measure."""
        looked_at = self.training[:MOST_FIT], self.held_out[:MOST_ASKED]
        found = {}
        for number, (name, module) in enumerate((("padim", self._studied.encoder), ("student", self._studied))):
            report("drawn defects", number / 2, "")
            scores = alignment.measure(alignment.in_batches(self._patches_by(module)), *looked_at, self._seed)
            found[name] = scores.alignment.mean
        report("drawn defects", 1.0, ", ".join(f"{name} {value:.3f}" for name, value in found.items()))
        return found

    def _step(self, student: Student, optimizer: torch.optim.Optimizer, step: int) -> None:
        rng = np.random.default_rng([self._seed, STEP_STREAM, step])
        rows = torch.from_numpy(rng.integers(0, len(self.lesson.stage), BATCH))
        loss = self._squares(student, self.lesson, rows).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def _squares(self, student: Student, lesson: Lesson, rows: Tensor) -> Tensor:
        """Squared residuals [n, D, rows, columns] of some images."""
        stage, patches = (values[rows].to(self._device).float() for values in (lesson.stage, lesson.patches))
        residuals: Tensor = student.patches(patches) - student(stage)
        return residuals.square()

    @torch.no_grad()
    def _features(self, pixels: Pixels, tell: Callable[[float], None] = lambda share: None) -> Lesson:
        encoder, layer = self._studied.encoder, self._studied.student.layer
        stage, patches = list[Tensor](), list[Tensor]()
        for begin in range(0, len(pixels), ENCODED):
            stages = encoder.stages(self._frames(torch.from_numpy(pixels[begin : begin + ENCODED])))
            stage.append(_halved(stages[layer]))
            patches.append(_halved(encoder.patch_map(stages)))
            tell(min(begin + ENCODED, len(pixels)) / len(pixels))
        return Lesson(torch.cat(stage), torch.cat(patches))

    def _patches_by(self, module: nn.Module) -> Callable[[Tensor], Tensor]:
        return lambda pixels: module(self._frames(pixels))[1]

    def _frames(self, pixels: Tensor) -> Tensor:
        return normalise(pixels.to(self._device), self._mean, self._std)


def _halved(values: Tensor) -> Tensor:
    largest = torch.finfo(torch.float16).max
    return values.clamp(-largest, largest).half().cpu()


def _read_images(data: Path, spec: dict[str, Any], seed: int, report: Report) -> ImageSet:
    asked = {"size": spec["height"], "resize": spec["resize"], "bit_depth": spec["bit_depth"], "seed": seed}
    config = make_config(asked | {"max_images": MOST_IMAGES})
    return read_images(data, config, lambda share: report("images", share, ""))
