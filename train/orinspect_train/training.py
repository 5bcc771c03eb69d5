"""The training loop: a LightningModule for a method, and the steps of a plan."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from orinspect_train.augment import normalise
from orinspect_train.batch_norm import share_statistics
from orinspect_train.batches import Batches
from orinspect_train.bfloat16 import faster_bfloat16
from orinspect_train.config import BY_DEVICE, PretrainConfig
from orinspect_train.encoder import Encoder, normalisation
from orinspect_train.methods import Batch, Method
from orinspect_train.processes import Processes

if TYPE_CHECKING:
    from orinspect_train.keeper import Keeper

LIGHTNING_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}
# No more of a short run than this goes into warming up.
MOST_WARMUP = 0.2
# A fast card is fed by so many processes at most.
MOST_WORKERS = 16


class Pretraining(pl.LightningModule):
    """An encoder under a method: the loss of a batch, and the optimiser of the configuration."""

    def __init__(self, encoder: Encoder, method: Method, config: PretrainConfig) -> None:
        super().__init__()
        self.encoder, self.heads, self.method, self.config = encoder, method.heads, method, config
        # Set before training: the length of the schedule, and where a resumed run goes on.
        self.steps, self.first_step = 1, 0
        self.optimizer_state: dict[str, Any] | None = None
        mean, std = normalisation(encoder.name)
        # Not part of the state: they follow from the encoder's name.
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def train(self, mode: bool = True) -> Pretraining:
        """Training mode, but for batch norms whose statistics are frozen: those of few images would be worse."""
        super().train(mode)
        if self.config.batch_norm == "frozen":
            # A teacher's encoder too.
            for encoder in (module for module in self.modules() if isinstance(module, Encoder)):
                for module in encoder.modules():
                    if isinstance(module, nn.modules.batchnorm._BatchNorm):
                        module.eval()
        return self

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalised float [B, 3, H, W] of uint8 [B, H, W, 3]."""
        return normalise(pixels, self.get_buffer("mean"), self.get_buffer("std"))

    def patches(self, pixels: Tensor) -> Tensor:
        """Patch features float [B, P, D] of uint8 [B, H, W, 3]."""
        maps = self.encoder.patch_map(self.encoder.stages(self.normalise(pixels.to(self.device))))
        return maps.flatten(2).transpose(1, 2)

    def embedding(self, pixels: Tensor) -> Tensor:
        """Embeddings float [B, E] of uint8 [B, H, W, 3]."""
        return self.encoder.pool_embedding(self.encoder.stages(self.normalise(pixels.to(self.device))))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss, and the embeddings for the signs of collapse."""
        with faster_bfloat16():
            loss, embeddings = self.method.loss(self.normalise, batch, self.done)
        return {"loss": loss, "embeddings": embeddings.detach()}

    @property
    def done(self) -> float:
        """Share of the steps that lies behind, 0 to 1."""
        taken = 0 if self._trainer is None else self.trainer.global_step
        return (self.first_step + taken) / self.steps

    def configure_optimizers(self) -> Any:
        """AdamW with one rate for the encoder and one for the heads, a linear warm-up and a cosine to zero."""
        groups = [
            {"params": _trained(self.encoder), "lr": self.config.learning_rate},
            {"params": _trained(self.heads), "lr": self.config.head_learning_rate},
        ]
        optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]], weight_decay=self.config.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.rate_at(self.first_step + step))
        if self.optimizer_state is not None:
            rates = [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(self.optimizer_state)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def rate_at(self, step: int) -> float:
        """Share of the learning rate in step number `step`, counted from 0."""
        warmup = min(self.config.warmup_steps, int(MOST_WARMUP * self.steps))
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(self.steps - warmup, 1)))


def train(module: Pretraining, pixels: Any, keeper: Keeper, processes: Processes, *, accelerator: str) -> int:
    """Run the steps from `module.first_step` to the end of the plan; returns the last. pixels: uint8 [N, H, W, 3].

    Raises CheckFailed when the encoder collapses or the loss is no number, KeyboardInterrupt when it is interrupted.
    """
    plan, config = keeper.plan, keeper.config
    # Over several devices each takes every n-th batch.
    first, last = module.first_step * plan.devices, plan.steps * plan.devices
    batches = Batches(
        pixels, module.method.render, batch_size=plan.batch_size, seed=config.seed, first=first, last=last
    )
    module.to(memory_format=torch.channels_last)
    if plan.devices > 1:
        share_statistics(module)
    try:
        # Processes that render for a GPU take all cores: with several threads, small sums here would wait for them.
        with _quiet(), threads(1 if accelerator == "gpu" else torch.get_num_threads()):
            trainer = pl.Trainer(
                accelerator=accelerator,
                devices=processes.devices,
                num_nodes=processes.nodes,
                strategy=processes.strategy,
                precision=LIGHTNING_PRECISION[plan.precision],  # type: ignore[arg-type]
                max_steps=plan.steps - module.first_step,
                max_epochs=-1,
                callbacks=[keeper],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(module, batches.loader(worker_count(config, accelerator), pin=accelerator == "gpu"))
            return module.first_step + trainer.global_step
    except SystemExit as error:
        # The trainer ends the process on ctrl-C, with the exit code that means a failed check here.
        raise KeyboardInterrupt from error


def device_here() -> torch.device:
    """What this machine trains on: its GPU, if it has one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def accelerator_here() -> str:
    """The same in the trainer's words."""
    return device_here().type.replace("cuda", "gpu")


def worker_count(config: PretrainConfig, accelerator: str) -> int:
    """Processes that render batches: on a processor none, since training takes all of it; for a GPU all other cores."""
    if config.workers != BY_DEVICE:
        return config.workers
    return 0 if accelerator == "cpu" else min(MOST_WORKERS, max(1, len(os.sched_getaffinity(0)) - 1))


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """With so many threads an operation on the processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the trainer's notes on which devices there are and how it could be configured."""
    log = logging.getLogger("pytorch_lightning")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning")
            yield
    finally:
        log.setLevel(level)


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
