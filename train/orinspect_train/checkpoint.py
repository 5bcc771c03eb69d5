"""checkpoints/last.ckpt: all that a killed run needs to go on with the same curve. Replaced as a whole, durably."""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.errors import InputError


@dataclass(frozen=True)
class Plan:
    """What was decided by measuring, so that a resumed run does not decide anew.

    steps: length of the schedule. precision: `fp32` or `bf16`. batch_size: images a step and device. devices: their
    number. images: digest of the image set. unadapted: AUROC by kind of probe defect before training. check_every:
    steps between two checks of it. measure: what these are, in words; figures of two measures are never compared.
    """

    steps: int
    precision: str
    batch_size: int
    devices: int
    images: str
    unadapted: dict[str, float]
    check_every: int
    measure: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` steps. model: encoder and heads. seconds: spent on all steps so far. checks: AUROC by kind of
    probe defect, by step. best: the trunk at the best of them, see alignment.best_step."""

    plan: Plan
    step: int
    seconds: float
    model: dict[str, Any]
    optimizer: dict[str, Any]
    checks: dict[int, dict[str, float]]
    best: dict[str, Any]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Publish the checkpoint. Raises InputError when the disk refuses; the previous one then remains."""
    content = {field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)}
    content["plan"] = dataclasses.asdict(checkpoint.plan)
    durable.write_file(path, lambda file: torch.save(content, file))


def read_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint, or None when the run was stopped before its first. Raises InputError for a damaged file."""
    if not path.exists():
        return None
    try:
        # weights_only: nothing in the file is executed.
        content = torch.load(path, map_location="cpu", weights_only=True)
        return Checkpoint(**(content | {"plan": Plan(**content["plan"])}))
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: damaged, so this run cannot be resumed; start again with --force") from error
