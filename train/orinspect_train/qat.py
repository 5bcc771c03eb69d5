"""`orinspect qat`: minutes of quantisation-aware training, after which an encoder's features survive INT8.

The run's encoder is teacher and start: under fake quantisation it is to give the features it gives without, so no label is
needed (distillation to a quantised student: Polino et al. 2018, arXiv 1802.05668). Batch statistics stay as they are.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.errors import CheckFailed
from orinspect_train.augment import Augmenter, flip, normalise
from orinspect_train.config import make_config
from orinspect_train.encoder import Encoder
from orinspect_train.fake_quantisation import FakeInt8
from orinspect_train.heap import kept_memory
from orinspect_train.images import ImageSet, Split, read_images
from orinspect_train.run import load_encoder, read_config_text, save_encoder
from orinspect_train.run_folder import CONFIG, STUDENT_ENTRY, check_folder

BATCH, RATE, HELD_OUT = 16, 1e-4, 0.15
# Images that the ranges of the activations and the spread of the features are taken from, and that errors are measured on.
MEASURED = 48
# A finish that takes off less of the rounding error is not worth another encoder.
LEAST_GAIN = 0.1
DRAW_STREAM = 7
# A channel that hardly varies weighs no more than one of this share of the mean spread.
LEAST_SPREAD = 0.01
Features = tuple[Tensor, Tensor]
Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Finish:
    """What a finish came to. Errors are root mean squares over held-out images, in standard deviations of the features:
    rounding_before and rounding_after of the INT8 features, drift of the float32 ones, all against the run's encoder.
    """

    run: str
    images: int
    skipped: int
    steps: int
    seconds: float
    rounding_before: float
    rounding_after: float
    drift: float


@kept_memory()
def finish(
    run: Path,
    data: Path,
    out: Path,
    *,
    minutes: float = 4.0,
    seed: int = 0,
    replace: bool = False,
    report: Report = lambda share, text: None,
) -> Finish:
    """Train the encoder of the finished `run` on the images below `data` for so long, and publish it as the run `out`.

    Raises InputError (run, images, out), and CheckFailed when the rounding error does not fall; `out` is then as before.
    """
    start = time.monotonic()
    check_folder(out, resume=False, force=replace)
    encoder, record = load_encoder(run)
    config_text = read_config_text(run)
    spec = record["preprocess"]
    images = read_images(
        data,
        make_config({"size": spec["height"], "resize": spec["resize"], "bit_depth": spec["bit_depth"], "seed": seed}),
    )
    distillation = Distillation(encoder, images, record["mean"], record["std"], seed)
    before, _ = distillation.errors()
    steps = distillation.train(start + 60 * minutes, report)
    after, drift = distillation.errors()
    if not after < (1 - LEAST_GAIN) * before:
        raise CheckFailed(
            f"rounding changes the features by {before:.3f} standard deviations before and {after:.3f} after {steps} steps: "
            f"no gain, {out} was not written; pass more --minutes, or export {run} as it is"
        )
    # It has learnt from the encoder as it was.
    record = {name: value for name, value in record.items() if name != STUDENT_ENTRY}
    done = Finish(str(out), len(images.paths), len(images.skipped), steps, 0.0, before, after, drift)
    with durable.new_folder(out, replace=out.exists()) as folder:
        durable.write_bytes(folder / CONFIG, config_text)
        save_encoder(folder, encoder, record | {"qat": asdict(done)})
    return Finish(**(asdict(done) | {"seconds": time.monotonic() - start}))


class Distillation:
    """An encoder that learns to give under rounding what it gave without, on the CPU or the first GPU."""

    def __init__(
        self,
        encoder: Encoder,
        images: ImageSet,
        mean: list[float],
        std: list[float],
        seed: int,
        share: float = HELD_OUT,
    ) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._student = encoder.to(self._device).eval()
        self._teacher = copy.deepcopy(self._student)
        self._mean, self._std = (torch.tensor(values, device=self._device) for values in (mean, std))
        self._split: Split = images.split(share)
        self._augmenter, self._seed = Augmenter(images.gray), seed
        few = self._frames(self._split.training[:MEASURED])
        self._rounded = FakeInt8(self._student, few)
        with torch.no_grad():
            self._spreads = [_spread(values) for values in self._teacher(few)]

    def train(self, deadline: float, report: Report) -> int:
        """Adam until the deadline (on time.monotonic()), its rate falling as a cosine; returns the number of steps."""
        optimizer = torch.optim.Adam(self._student.parameters(), lr=RATE)
        began, steps = time.monotonic(), 0
        while (now := time.monotonic()) < deadline:
            share = (now - began) / (deadline - began)
            for group in optimizer.param_groups:
                group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * share))
            frames = self._frames(self._drawn(steps))
            with torch.no_grad():
                wanted = self._teacher(frames)
            loss = self._distance(self._rounded.features(frames), wanted)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps += 1
            report(share, f"rounding error {math.sqrt(loss.item()):.3f}")
        return steps

    @torch.no_grad()
    def errors(self) -> tuple[float, float]:
        """(rounding error, drift) of the student on held-out images; see Finish."""
        frames = self._frames(self._split.held_out[:MEASURED])
        wanted = self._teacher(frames)
        found = (self._rounded.features(frames), self._student(frames))
        rounding, drift = (math.sqrt(self._distance(features, wanted).item()) for features in found)
        return rounding, drift

    def _distance(self, features: Features, wanted: Features) -> Tensor:
        """Mean squared difference of embeddings and patches, half each, in variances of each dimension."""
        parts = [
            ((found - exact) / spread).square().mean()
            for found, exact, spread in zip(features, wanted, self._spreads, strict=True)
        ]
        return torch.stack(parts).mean()

    def _drawn(self, step: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng([self._seed, DRAW_STREAM, step])
        drawn = self._split.training[rng.permutation(len(self._split.training))[:BATCH]]
        turned = [
            flip(image, choice) for image, choice in zip(drawn, self._augmenter.flips(len(drawn), rng), strict=True)
        ]
        return self._augmenter.jitter(np.stack(turned).astype(np.uint8), rng)

    def _frames(self, pixels: NDArray[np.uint8]) -> Tensor:
        return normalise(torch.from_numpy(np.ascontiguousarray(pixels)).to(self._device), self._mean, self._std)


def _spread(values: Tensor) -> Tensor:
    """Standard deviation of each dimension of [..., D], the small ones raised."""
    found = values.flatten(0, -2).std(0)
    return found.clamp_min(LEAST_SPREAD * float(found.mean()) + 1e-12)
