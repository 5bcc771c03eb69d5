"""How many steps fit: a short probe measures the seconds a step, in each precision; the model is left as it was."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import ConfigError
from orinspect_train.batches import Batches
from orinspect_train.config import PretrainConfig
from orinspect_train.training import Pretraining, threads, worker_count

PROBE_BATCH, PROBE_STEPS = 16, 2
# Of a whole step, as the small batch foretells it.
SHORT_SECONDS = 2.0
# bfloat16 must be so much faster to be worth its rounding.
WORTH = 0.9
# The probe's small steps leave out some of a real one's cost, and the machine may get busier.
MARGIN = 1.05
# A probe of one batch is no better than this.
MOST_RENDERING = 1.3
# Fewer steps than this change nothing.
FEWEST_STEPS = 5
# Of the training, for the checks before its end; there are so many checks at most, the one at the end among them.
CHECK_SHARE, MOST_CHECKS = 0.1, 5
# What a training step makes of an image, in forward passes.
STEP_PASSES = 3


@dataclass(frozen=True)
class Speed:
    """The faster precision, and the seconds a step of `batch_size` images takes in it.

    rendering: how many times as long other processes take to render a batch as the GPU to train on it; 0 without a GPU.
    """

    precision: str
    step_seconds: float
    rendering: float = 0.0

    @property
    def warning(self) -> str:
        """What to tell the user of a GPU that will wait for its images; empty if it will not."""
        if self.rendering < MOST_RENDERING:
            return ""
        return (
            f"rendering takes {self.rendering:.1f} times as long as training, so the GPU will wait for its images: give the "
            "run more processor cores, or choose a --method or --policy that renders faster"
        )


def probe_speed(module: Pretraining, pixels: NDArray[np.uint8], config: PretrainConfig, device: torch.device) -> Speed:
    """Time rendering and training steps; the weights and the random state stay as they are.

    A small batch comes first. Where its step takes next to nothing, it says little of a whole one, which is timed then.
    """
    found = _probe(module, pixels, config, device, min(PROBE_BATCH, config.batch_size))
    if found.step_seconds < SHORT_SECONDS and config.batch_size > PROBE_BATCH:
        found = _probe(module, pixels, config, device, config.batch_size)
    return found


def _probe(
    module: Pretraining, pixels: NDArray[np.uint8], config: PretrainConfig, device: torch.device, batch_size: int
) -> Speed:
    batches = Batches(pixels, module.method.render, batch_size=batch_size, seed=config.seed, first=0, last=1)
    workers = worker_count(config, "gpu" if device.type == "cuda" else "cpu")
    # A process that renders has one.
    with threads(1 if workers else torch.get_num_threads()):
        start = time.perf_counter()
        rendered = batches[0]
        render_seconds = (time.perf_counter() - start) / max(workers, 1)
    batch = {name: value.to(device) for name, value in rendered.items()}
    wanted = ("fp32", "bf16") if config.precision == "auto" else (config.precision,)
    found = {precision: _time_steps(module, batch, precision, device) for precision in wanted}
    fastest = min(found, key=lambda name: found[name] * (1 if name == "fp32" else 1 / WORTH))
    whole = MARGIN * config.batch_size / batch_size
    return speed_of(fastest, whole * found[fastest], whole * render_seconds, at_once=device.type == "cuda")


def speed_of(precision: str, train_seconds: float, render_seconds: float, *, at_once: bool) -> Speed:
    """The speed of steps that train and render for so long, by the GPU and the processor at once or one after the other."""
    if at_once:
        return Speed(precision, max(train_seconds, render_seconds), render_seconds / train_seconds)
    return Speed(precision, train_seconds + render_seconds)


def fit_steps(seconds_left: float, speed: Speed, config: PretrainConfig) -> int:
    """Steps that fit into the rest of the budget. Raises ConfigError when that is next to none, with what would do."""
    steps = int(seconds_left / speed.step_seconds)
    if steps < FEWEST_STEPS:
        missing = (FEWEST_STEPS * speed.step_seconds - seconds_left) / 60
        raise ConfigError(
            f"minutes is {config.minutes:g}: reading, probing and checking leave no time to train "
            f"({speed.step_seconds:.1f} s a step); pass --minutes {config.minutes + missing + 0.1:.1f} or a smaller --size"
        )
    return steps


def fit_checks(seconds_left: float, check_seconds: float, speed: Speed, config: PretrainConfig) -> tuple[int, int]:
    """Steps that fit into the rest of the budget with checks between them, and the interval of the checks.

    seconds_left: without the check after the last step. Raises ConfigError as `fit_steps` does.
    """
    steps = fit_steps(seconds_left, speed, config)
    interval = config.check_every or check_interval(steps, check_seconds / speed.step_seconds)
    return fit_steps(seconds_left - (steps - 1) // interval * check_seconds, speed, config), interval


def check_interval(steps: int, check_cost: float) -> int:
    """Steps between two checks of which one costs as much as `check_cost` training steps; the last step has one too."""
    affordable = int(CHECK_SHARE * steps / check_cost)
    return -(-steps // (1 + min(affordable, MOST_CHECKS - 1)))


def epoch_steps(images: int, batch_size: int, devices: int, epochs: int) -> int:
    """Steps of so many passes over the images."""
    return -(-epochs * images // (batch_size * devices))


def _time_steps(module: Pretraining, batch: dict[str, Any], precision: str, device: torch.device) -> float:
    """Seconds of forward and backward pass, the better of some, after one to warm up."""
    state = copy.deepcopy(module.state_dict())
    module.to(device=device, memory_format=torch.channels_last).train()
    seconds = []
    for _ in range(1 + PROBE_STEPS):
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = module.training_step(batch, 0)["loss"]
        loss.backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    module.zero_grad(set_to_none=True)
    # Batch norms may have counted these steps.
    module.load_state_dict(state)
    return min(seconds[1:])
