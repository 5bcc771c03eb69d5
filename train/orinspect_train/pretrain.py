"""`orinspect pretrain`: a folder of images in, a RUN folder out; killed at any moment, it goes on where it was."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.errors import CheckFailed, ConfigError, InputError
from orinspect_train import alignment, budget, metrics_log
from orinspect_train.alignment import Alignment
from orinspect_train.checkpoint import Checkpoint, Plan, read_checkpoint
from orinspect_train.config import BY_MINUTES, PretrainConfig, to_toml
from orinspect_train.encoder import Encoder, freeze_stages, normalisation
from orinspect_train.images import ImageSet, read_images
from orinspect_train.methods import METHODS
from orinspect_train.run import (
    CHECKPOINT,
    CONFIG,
    METRICS,
    RECORD,
    SKIPPED,
    encoder_record,
    is_finished,
    load_imagenet,
    load_weights,
    save_encoder,
)
from orinspect_train.training import Keeper, Pretraining, train

# Called with the stage ("images", "check", "training"), the share of it that is done, and what there is to say.
Report = Callable[[str, float, str], None]


@dataclass(frozen=True)
class Outcome:
    """What a run came to. images, skipped: numbers of them. steps: done. alignment: as in encoder.json."""

    run: str
    adapted: bool
    images: int
    skipped: int
    steps: int
    planned_steps: int
    images_per_second: float
    seconds: float
    precision: str
    alignment: dict[str, Any]


def pretrain(
    data: Path,
    run: Path,
    config: PretrainConfig,
    *,
    resume: bool = False,
    force: bool = False,
    devices: int = 1,
    started: float | None = None,
    report: Report = lambda stage, share, text: None,
) -> Outcome:
    """Adapt an encoder to the images below `data` and publish it in `run`, unless the alignment check says it got worse.

    resume: go on with an unfinished run. force: replace a run. started: of the time budget, on time.monotonic().
    Raises InputError (images, folders), ConfigError, and CheckFailed when the training collapses.
    """
    started = time.monotonic() if started is None else started
    config = config.resolved()
    accelerator = _accelerator(devices)
    check_folder(run, resume=resume, force=force)
    images = read_images(data, config, lambda share: report("images", share, ""))
    if not resume:
        _start_folder(run, config, images)
    job = _Job(run, config, images, devices, accelerator, started, report)
    return job.carry_out(read_checkpoint(run / CHECKPOINT))


def check_folder(run: Path, *, resume: bool, force: bool) -> None:
    """Whether a run may start in this folder, or go on. Raises InputError with the option to pass."""
    if resume:
        if not (run / CONFIG).is_file():
            raise InputError(f"{run}: there is no run to resume; leave --resume out")
        if is_finished(run):
            raise InputError(f"{run}: this run is finished, nothing is left to resume; --force starts it again")
        return
    if not run.exists() or (run.is_dir() and not any(run.iterdir())):
        return
    if not force:
        raise InputError(f"{run} exists already: pass --resume to go on, --force to start again, or another --out")
    if not (run / CONFIG).is_file():
        raise InputError(f"{run}: not a run, so --force does not remove it; choose another --out")


def open_encoder(config: PretrainConfig) -> Encoder:
    """The encoder with its initial weights; its shallow stages are frozen as configured."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        encoder = Encoder(config.encoder)
    if config.init == "imagenet":
        load_imagenet(encoder)
    elif config.init != "scratch":
        load_weights(encoder, Path(config.init))
    freeze_stages(encoder, config.frozen_stages)
    return encoder


class _Job:
    """One run, from the images in memory to the published encoder."""

    def __init__(
        self,
        run: Path,
        config: PretrainConfig,
        images: ImageSet,
        devices: int,
        accelerator: str,
        started: float,
        report: Report,
    ) -> None:
        self.run, self.config, self.images, self.devices = run, config, images, devices
        self.accelerator, self.started, self.report = accelerator, started, report
        self.training, self.held_out = images.split(config.held_out, config.seed)
        self.encoder = open_encoder(config)

    def carry_out(self, checkpoint: Checkpoint | None) -> Outcome:
        if self.config.epochs == 0:
            return self._publish(None, {})
        initial = {name: value.clone() for name, value in self.encoder.trunk.state_dict().items()}
        plan = checkpoint.plan if checkpoint else None
        if plan is not None and (plan.images, plan.devices) != (self.images.digest, self.devices):
            raise InputError(f"{self.run}: it began with other images or another --devices; resume it with the same")
        plan, _ = self._train(plan, checkpoint)
        done = read_checkpoint(self.run / CHECKPOINT)
        if done is None:
            raise CheckFailed(f"{self.run}: the training ended without a checkpoint; start again with --force")
        self.module.load_state_dict(done.model)
        before, after = Alignment(plan.unadapted), self._measure("check of the adapted encoder")
        if not alignment.has_helped(before, after):
            self.encoder.trunk.load_state_dict(initial)
        return self._publish(done, alignment.record(before, after), adapted=alignment.has_helped(before, after))

    def _train(self, plan: Plan | None, checkpoint: Checkpoint | None) -> tuple[Plan, Keeper]:
        batch_size = min(self.config.batch_size, len(self.training))
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            method = METHODS[self.config.method](self.encoder, self.config.size, self.images.gray, self.devices)
        self.module = Pretraining(self.encoder, method, self.config, steps=1)
        reserve = 0.0
        if plan is None:
            plan, reserve = self._make_plan(batch_size)
        module, seconds = self.module, 0.0
        module.steps = plan.steps
        if checkpoint is not None:
            module.load_state_dict(checkpoint.model)
            module.optimizer_state, module.first_step, seconds = (
                checkpoint.optimizer,
                checkpoint.step,
                checkpoint.seconds,
            )
        metrics_log.start_log(self.run / METRICS, module.first_step)
        by_minutes = self.config.epochs == BY_MINUTES
        deadline = self.started + 60 * self.config.minutes - reserve if by_minutes and reserve else math.inf
        report = (lambda share, text: self.report("training", share, text)) if self.devices == 1 else None
        keeper = Keeper(self.run, plan, self.config, deadline, seconds, report)
        if module.first_step < plan.steps:
            train(module, self.training, keeper, accelerator=self.accelerator)
        return plan, keeper

    def _make_plan(self, batch_size: int) -> tuple[Plan, float]:
        """The plan, and the seconds that the check after training will take."""
        config = dataclasses.replace(self.config, batch_size=batch_size)
        began = time.monotonic()
        before = self._measure("check of the unadapted encoder")
        reserve = time.monotonic() - began
        speed = budget.probe_speed(self.module, self.training, config, self._device())
        if config.epochs == BY_MINUTES:
            left = self.started + 60 * config.minutes - time.monotonic() - reserve
            steps = budget.fit_steps(left, speed, config)
        else:
            steps = budget.epoch_steps(len(self.training), batch_size, self.devices, config.epochs)
        return Plan(steps, speed.precision, batch_size, self.devices, self.images.digest, before.auroc), reserve

    def _measure(self, stage: str) -> Alignment:
        self.report(stage, 0.0, "")
        self.module.to(device=self._device(), memory_format=torch.channels_last).eval()
        found = alignment.measure(alignment.embedder(self.module.embed), self.training, self.held_out, self.config.seed)
        self.report(stage, 1.0, f"mean AUROC {found.mean:.3f}")
        return found

    def _device(self) -> torch.device:
        return torch.device("cuda" if self.accelerator == "gpu" else "cpu")

    def _publish(self, done: Checkpoint | None, aligned: dict[str, Any], *, adapted: bool = False) -> Outcome:
        mean, std = normalisation(self.config.encoder)
        record = encoder_record(
            self.encoder,
            init=self.config.init,
            method=self.config.method,
            mean=mean,
            std=std,
            preprocess=self.config.preprocess,
            adapted=adapted,
            alignment=aligned,
        )
        save_encoder(self.run, self.encoder, record)
        steps, planned, rate, precision = 0, 0, 0.0, "fp32"
        if done is not None:
            steps, planned, precision = done.step, done.plan.steps, done.plan.precision
            rate = done.step * done.plan.batch_size * done.plan.devices / max(done.seconds, 1e-9)
        counts = len(self.images.paths), len(self.images.skipped)
        seconds = time.monotonic() - self.started
        return Outcome(str(self.run), adapted, *counts, steps, planned, rate, seconds, precision, aligned)


def _start_folder(run: Path, config: PretrainConfig, images: ImageSet) -> None:
    # First what makes an old run read as finished, so that a kill in between leaves no half of it.
    (run / RECORD).unlink(missing_ok=True)
    shutil.rmtree(run, ignore_errors=True)
    skipped = [{"path": str(s.path), "reason": s.reason} for s in images.skipped]
    durable.write_bytes(run / SKIPPED, (json.dumps(skipped, indent=2) + "\n").encode())
    durable.write_bytes(run / CONFIG, to_toml(config))


def _accelerator(devices: int) -> str:
    """Lightning's name of what to train on. Raises ConfigError for more devices than there are."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if devices < 1 or (gpus and devices > gpus):
        raise ConfigError(f"--devices {devices}: this machine has {gpus or 'no'} GPUs; pass 1 to {max(gpus, 1)}")
    return "gpu" if gpus else "cpu"
