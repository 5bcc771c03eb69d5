"""Whether a folder may take a run: nothing is overwritten unasked, and nothing but a run is ever removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import Skipped
from orinspect_train.config import PretrainConfig, to_toml

CONFIG, WEIGHTS, RECORD = "config.toml", "encoder.safetensors", "encoder.json"
# Adapted weights that did not pass the alignment check.
DROPPED = "adapted.safetensors"
# A student of the encoder (student.py), and what encoder.json calls it.
STUDENT, STUDENT_ENTRY = "student.safetensors", "student"
TENSORBOARD = "tensorboard"
METRICS, SKIPPED, CHECKPOINT = "metrics.csv", "skipped.json", "checkpoints/last.ckpt"


def is_finished(run: Path) -> bool:
    """Whether pretraining ended and published its encoder."""
    return (run / RECORD).is_file() and (run / WEIGHTS).is_file()


def check_folder(run: Path, *, resume: bool, force: bool) -> None:
    """Whether a run may start in this folder, or go on. Raises InputError with the option to pass."""
    if resume:
        if not (run / CONFIG).is_file():
            raise InputError(f"{run}: there is no run to resume; leave --resume out")
        if is_finished(run):
            raise InputError(f"{run}: this run is finished, nothing is left to resume; --force starts it again")
    elif run.exists() and not (run.is_dir() and not any(run.iterdir())):
        if not force:
            raise InputError(f"{run} exists already: pass --resume to go on, --force to start again, or another --out")
        if not (run / CONFIG).is_file():
            raise InputError(f"{run}: not a run, so --force does not remove it; choose another --out")


def start_folder(run: Path, config: PretrainConfig, skipped: Sequence[Skipped]) -> None:
    """Remove the run that stood here and write what is known before training: config.toml and skipped.json."""
    # First what makes the old run read as finished: a kill in between must leave no half of it that does.
    (run / RECORD).unlink(missing_ok=True)
    # config.toml goes last: without it a second --force would take the rest for somebody's own files.
    for entry in sorted(run.iterdir() if run.exists() else [], key=lambda path: path.name == CONFIG):
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    listed = [{"path": str(s.path), "reason": s.reason} for s in skipped]
    durable.write_bytes(run / CONFIG, to_toml(config))
    durable.write_bytes(run / SKIPPED, (json.dumps(listed, indent=2) + "\n").encode())
