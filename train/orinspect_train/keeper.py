"""What happens between the steps of a training: the log, the checks, the checkpoint, and the deadline."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytorch_lightning as pl
from torch import Tensor

from orinspect_train import metrics_log
from orinspect_train.alignment import Alignment, Check, best_step
from orinspect_train.blend import State, blended
from orinspect_train.checkpoint import Checkpoint, Plan, write_checkpoint
from orinspect_train.config import BY_TIME, PretrainConfig
from orinspect_train.health import Watch, examine
from orinspect_train.heap import keep_freed_memory
from orinspect_train.run_folder import CHECKPOINT, METRICS, TENSORBOARD

if TYPE_CHECKING:
    from orinspect_train.training import Pretraining

# The health of more would take as long as a GPU's training step.
MOST_EMBEDDINGS = 128
# Work that a killed run may lose.
CHECKPOINT_SECONDS = 30
Report = Callable[[float, str], None]


@dataclass
class Keeper(pl.Callback):
    """At intervals of steps: check loss and health, log a row, check the alignment, save a checkpoint; stop at the
    deadline.

    deadline: on time.monotonic(), seconds; infinite for a run by epochs. resumed: the checkpoint it goes on from.
    check: at the plan's intervals, and after the last step; the trunk of the best is kept (None: not at all). initial: the
    trunk's weights that the run began with, of which what is checked and kept has the configured share.
    """

    run: Path
    plan: Plan
    config: PretrainConfig
    deadline: float = math.inf
    resumed: Checkpoint | None = None
    report: Report | None = None
    check: Check | None = None
    initial: State = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first_seconds = self.resumed.seconds if self.resumed else 0.0
        self.checks = {} if self.resumed is None else dict(self.resumed.checks)
        self.best = {} if self.resumed is None else self.resumed.best
        self.started = self.saved = time.monotonic()
        self.watch = Watch(grace_steps=min(self.config.warmup_steps, self.plan.steps // 2))
        self.stopped_early = False
        self.board: metrics_log.Board | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The clock starts with the first step, in a process that may have been spawned: with a heap of its own."""
        keep_freed_memory()
        self.started = self.saved = time.monotonic()
        if self.config.tensorboard and trainer.is_global_zero:
            self.board = metrics_log.Board(self.run / TENSORBOARD, cast("Pretraining", pl_module).first_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Called by the trainer after each step."""
        module = cast("Pretraining", pl_module)
        step = module.first_step + trainer.global_step
        is_last = step >= self.plan.steps
        # Clocks differ, and processes that do not stop at one step wait for each other for ever.
        late = trainer.strategy.reduce_boolean_decision(time.monotonic() > self.deadline, all=False)
        if not is_last and late:
            self.stopped_early = trainer.should_stop = True
        ends = is_last or self.stopped_early
        is_checked = ends or step % self.plan.check_every == 0
        is_logged, is_saved = is_checked or step % self.config.log_every == 0, ends or self._is_due(step)
        if is_logged or is_saved:
            # Not after every step: reading it waits for the GPU, which would then wait for the next step.
            loss = float(outputs["loss"])
            self.watch.check_loss(step, loss)
        signal = self._check(module, step) if is_checked and trainer.is_global_zero else None
        if is_logged:
            self._log(trainer, module, step, loss, outputs["embeddings"], signal)
        if is_saved:
            self._save(trainer, module, step)

    @property
    def seconds(self) -> float:
        """Spent on all steps so far."""
        return self.first_seconds + time.monotonic() - self.started

    def _is_due(self, step: int) -> bool:
        if self.config.checkpoint_every == BY_TIME:
            return time.monotonic() - self.saved > CHECKPOINT_SECONDS
        return step % self.config.checkpoint_every == 0

    def _check(self, module: Pretraining, step: int) -> float | None:
        """Measure the alignment, and keep the trunk if it is the best so far."""
        if self.check is None:
            return None
        trunk = module.encoder.trunk
        with blended(trunk, self.initial, self.config.initial_share):
            found = self.check.measure(module)
            self.checks[step] = found.auroc
            checks = {step: Alignment(auroc) for step, auroc in self.checks.items()}
            if best_step(Alignment(self.plan.unadapted), checks) == step:
                self.best = {name: value.detach().cpu().clone() for name, value in trunk.state_dict().items()}
        module.train()
        return found.mean

    def _log(
        self,
        trainer: pl.Trainer,
        module: Pretraining,
        step: int,
        loss: float,
        embeddings: Tensor,
        signal: float | None,
    ) -> None:
        health = examine(embeddings[:MOST_EMBEDDINGS])
        seen = step * self.plan.batch_size * self.plan.devices
        rate = module.config.learning_rate * module.rate_at(step - 1)
        row = metrics_log.Row(
            step, round(self.seconds, 3), seen, loss, health.embedding_std, health.effective_rank, rate, signal
        )
        if trainer.is_global_zero:
            metrics_log.append(self.run / METRICS, row)
            if self.board is not None:
                self.board.append(row)
            if self.report is not None:
                self.report(step / self.plan.steps, describe(row))
        self.watch.check_health(step, health)

    def _save(self, trainer: pl.Trainer, module: Pretraining, step: int) -> None:
        if trainer.is_global_zero:
            (optimizer,) = trainer.optimizers
            states = module.state_dict(), optimizer.state_dict()
            state = Checkpoint(self.plan, step, self.seconds, *states, self.checks, self.best)
            write_checkpoint(self.run / CHECKPOINT, state)
        self.saved = time.monotonic()


def describe(row: metrics_log.Row) -> str:
    """The progress line: loss and signs of collapse."""
    signs = f"embedding_std {row.embedding_std:.2f} effective_rank {row.effective_rank:.1f}"
    return f"loss {row.loss:.3f} {signs}"
