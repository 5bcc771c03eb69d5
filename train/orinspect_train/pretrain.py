"""`orinspect pretrain`: a folder of images in, a RUN folder out; killed at any moment, it goes on where it was."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_train import alignment, budget, metrics_log, policies
from orinspect_train.alignment import Alignment
from orinspect_train.augment import Augmenter
from orinspect_train.blend import State
from orinspect_train.checkpoint import Checkpoint, Plan, read_checkpoint
from orinspect_train.config import BY_INIT, BY_MINUTES, VIEW_METHODS, PretrainConfig
from orinspect_train.encoder import Encoder, freeze_stages, normalisation
from orinspect_train.heap import kept_memory
from orinspect_train.images import ImageSet, read_images
from orinspect_train.keeper import Keeper
from orinspect_train.methods import complete, open_method
from orinspect_train.preview import write_preview
from orinspect_train.processes import Processes, join_processes
from orinspect_train.progress import WARNING, Report
from orinspect_train.run import encoder_record, load_imagenet, load_weights, save_encoder, save_weights
from orinspect_train.run_folder import CHECKPOINT, DROPPED, METRICS, check_folder, start_folder
from orinspect_train.survival import Survival, measure_survival
from orinspect_train.training import Pretraining, accelerator_here, device_here, train

# Enough to tell their kind by; a preview is to be there at once.
PREVIEW_IMAGES = 64


@dataclass(frozen=True)
class Outcome:
    """What a run came to. images, skipped: numbers of them. steps: done, of planned_steps. images_per_second: while
    training. seconds: of this process, reading and checks included. alignment: as in encoder.json. patches_adapted: whether
    the patches changed, and not the embedding alone."""

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
    patches_adapted: bool


@kept_memory()
def pretrain(
    data: Path,
    run: Path,
    config: PretrainConfig,
    *,
    resume: bool = False,
    force: bool = False,
    devices: int = 1,
    nodes: int = 1,
    started: float | None = None,
    report: Report = lambda stage, share, text: None,
) -> Outcome:
    """Adapt an encoder to the images below `data`, and publish it in `run`; see alignment.py for when it is kept.

    resume: go on with an unfinished run. force: replace a run. devices, nodes: see processes.py; the outcome is the same
    in every process. started: of the time budget, on time.monotonic().
    Raises InputError (images, folders), ConfigError, and CheckFailed when the training collapses.
    """
    started = time.monotonic() if started is None else started
    config, processes = complete(config), join_processes(devices, nodes)
    if processes.is_first:
        check_folder(run, resume=resume, force=force)
    if config.tensorboard:
        metrics_log.board_writer()
    encoder = open_encoder(config)
    images = read_images(data, config, lambda share: report("images", share, ""))
    if processes.is_first and not resume:
        start_folder(run, config, images.skipped)
    if config.epochs != 0 and not resume:
        warn_of_policy(config, images, report)
    job = _Job(run, config, images, encoder, processes, started, report)
    if config.epochs == 0:
        return processes.from_first(lambda: job.publish(None, {}, adapted=False))
    return job.adapt(processes.from_first(lambda: read_checkpoint(run / CHECKPOINT)))


def open_encoder(config: PretrainConfig) -> Encoder:
    """The encoder with its initial weights; its shallow stages are frozen as configured."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        encoder = Encoder(config.encoder, config.size)
    if config.init == "imagenet":
        load_imagenet(encoder)
    elif config.init != "scratch":
        load_weights(encoder, Path(config.init))
    frozen = config.resolved().frozen_stages
    freeze_stages(encoder, encoder.patch_stages if frozen == BY_INIT else frozen)
    return encoder


def policy_of(config: PretrainConfig, images: ImageSet) -> str:
    """The name of the configured policy, or of the one that suits the images."""
    return policies.choose_policy(images.pixels, gray=images.gray) if config.policy == policies.AUTO else config.policy


def open_augmenter(config: PretrainConfig, images: ImageSet) -> Augmenter:
    """What the images may undergo."""
    return Augmenter(images.gray, policies.POLICIES[policy_of(config, images)])


def warn_of_policy(config: PretrainConfig, images: ImageSet, report: Report) -> Survival | None:
    """What the policy leaves of drawn defects, with a line to the user when that is little.

    None for methods that do not compare views.
    """
    if config.method not in VIEW_METHODS:
        return None
    survival = measure_survival(open_augmenter(config, images), images.pixels, config.seed)
    warning = survival.warning(policy_of(config, images))
    if warning:
        report(WARNING, 1.0, warning)
    return survival


def preview(
    data: Path, file: Path, config: PretrainConfig, report: Report = lambda stage, share, text: None
) -> tuple[str, Survival | None]:
    """Write a sheet of what the method would be shown of the images below `data`; returns the policy's name, and what
    it leaves of drawn defects if the method compares views.

    Raises InputError (images, or a file that cannot be written) and ConfigError.
    """
    config = dataclasses.replace(complete(config), max_images=min(config.max_images, PREVIEW_IMAGES))
    encoder = open_encoder(dataclasses.replace(config, init="scratch"))
    images = read_images(data, config, lambda share: report("images", share, ""))
    write_preview(file, open_pretraining(config, encoder, images).method, images.pixels, config.seed)
    return policy_of(config, images), warn_of_policy(config, images, report)


def open_pretraining(config: PretrainConfig, encoder: Encoder, images: ImageSet, devices: int = 1) -> Pretraining:
    """The encoder under the configured method, its heads new."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        method = open_method(config, encoder, open_augmenter(config, images), devices)
    return Pretraining(encoder, method, config)


@dataclass(frozen=True)
class _Job:
    """One run, from the images in memory to the published encoder."""

    run: Path
    config: PretrainConfig
    images: ImageSet
    encoder: Encoder
    processes: Processes
    started: float
    report: Report

    def adapt(self, checkpoint: Checkpoint | None) -> Outcome:
        """Train (on), and keep the result if it is better than the initial encoder."""
        initial = {name: value.clone() for name, value in self.encoder.trunk.state_dict().items()}
        module = open_pretraining(self.config, self.encoder, self.images, self.processes.total)
        if checkpoint is None:
            plan, seconds = self.processes.from_first(lambda: self._make_plan(module))
        else:
            plan, seconds = self._checked(checkpoint.plan), math.inf
        module.steps = plan.steps
        self._train(module, plan, time.monotonic() + seconds, checkpoint, initial)
        return self.processes.from_first(lambda: self._conclude(plan, initial))

    def _conclude(self, plan: Plan, initial: State) -> Outcome:
        """Publish the best of the weights that were checked, or the initial ones."""
        done = read_checkpoint(self.run / CHECKPOINT)
        if done is None:
            raise CheckFailed(f"{self.run}: the training ended without a checkpoint; start again with --force")
        before, checks = Alignment(plan.unadapted), {step: Alignment(auroc) for step, auroc in done.checks.items()}
        adapted = alignment.has_helped(before, checks[alignment.best_step(before, checks)])
        self.encoder.trunk.load_state_dict(done.best)
        if not adapted:
            save_weights(self.run / DROPPED, self.encoder)
            self.encoder.trunk.load_state_dict(initial)
        found = alignment.record(self._anomalies.measure, before, checks)
        return self.publish(done, found, adapted=adapted)

    def publish(self, done: Checkpoint | None, aligned: dict[str, Any], *, adapted: bool) -> Outcome:
        """Write the encoder as it is now; the run is finished."""
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
        patches = adapted and self.encoder.learns_patches
        return Outcome(str(self.run), adapted, *counts, steps, planned, rate, seconds, precision, aligned, patches)

    def _make_plan(self, module: Pretraining) -> tuple[Plan, float]:
        """The plan, and the seconds from now after which training must end to leave time for the check after it."""
        training = self.images.split(self.config.held_out).training
        config = dataclasses.replace(self.config, batch_size=min(self.config.batch_size, len(training)))
        speed = budget.probe_speed(module, training, config, device_here())
        if speed.warning:
            self.report(WARNING, 1.0, speed.warning)
        check, began = self._check(speed.precision), time.monotonic()
        self.report("check before", 0.0, "")
        before = check.measure(module.to(device=device_here(), memory_format=torch.channels_last))
        self.report("check before", 1.0, f"mean AUROC {before.mean:.3f}")
        check_seconds = time.monotonic() - began
        devices, deadline = self.processes.total, math.inf
        if config.epochs == BY_MINUTES:
            deadline = self.started + 60 * config.minutes - check_seconds
            steps, every = budget.fit_checks(deadline - time.monotonic(), check_seconds, speed, config)
        else:
            steps = budget.epoch_steps(len(training), config.batch_size, devices, config.epochs)
            # By numbers of images, not by the clock: two runs of one seed must check at the same steps.
            check_cost = check.images / (budget.STEP_PASSES * config.batch_size * devices)
            every = config.check_every or budget.check_interval(steps, check_cost)
        digest, measure = self.images.digest, self._anomalies.measure
        plan = Plan(steps, speed.precision, config.batch_size, devices, digest, before.auroc, every, measure)
        return plan, deadline - time.monotonic()

    def _checked(self, plan: Plan) -> Plan:
        if (plan.images, plan.devices) != (self.images.digest, self.processes.total):
            raise InputError(f"{self.run}: it began with other images or other --devices; resume it with the same")
        if plan.measure != self._anomalies.measure:
            raise InputError(f"{self.run}: an older orinspect began it with another check; start again with --force")
        return plan

    @property
    def _anomalies(self) -> alignment.Anomalies:
        return alignment.anomalies_of(self.config.anomalies, self.encoder)

    def _train(
        self, module: Pretraining, plan: Plan, deadline: float, checkpoint: Checkpoint | None, initial: State
    ) -> None:
        """Train to the end of the plan, or to the deadline (on time.monotonic()), which leaves a checkpoint."""
        if checkpoint is not None:
            module.load_state_dict(checkpoint.model)
            module.optimizer_state, module.first_step = checkpoint.optimizer, checkpoint.step
        if self.processes.is_first:
            metrics_log.start_log(self.run / METRICS, module.first_step)
        # The check before it leaves the module in evaluation mode, and the trainer keeps what it finds.
        module.train()
        if module.first_step < plan.steps:
            # Processes that are started from this one cannot share the terminal's bar.
            shown = self.processes.strategy != "ddp_spawn" and self.processes.is_first
            report = (lambda share, text: self.report("training", share, text)) if shown else None
            check = self._check(plan.precision)
            keeper = Keeper(self.run, plan, self.config, deadline, checkpoint, report, check, initial)
            pixels = self.images.split(self.config.held_out).training
            train(module, pixels, keeper, self.processes, accelerator=accelerator_here())

    def _check(self, precision: str) -> alignment.Check:
        training, held_out = self.images.split(self.config.held_out)
        looked_at = training[: alignment.MOST_FIT], held_out[: alignment.MOST_HELD_OUT]
        return alignment.Check(*looked_at, self.config.seed, precision, self._anomalies)
