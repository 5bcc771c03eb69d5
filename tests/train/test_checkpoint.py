from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch

from orinspect_edge_runtime.errors import InputError
from orinspect_train.checkpoint import Checkpoint, Plan, read_checkpoint, write_checkpoint

PLAN = Plan(10, "fp32", 4, 1, "digest", {"stain": 0.5}, 5)


def checkpoint(step: int) -> Checkpoint:
    optimizer, best = {"state": {}, "param_groups": []}, {"w": torch.ones(3)}
    return Checkpoint(PLAN, step, 1.5, {"w": torch.arange(3.0)}, optimizer, {5: {"stain": 0.75}}, best)


def test_a_checkpoint_survives_its_file(tmp_path: Path) -> None:
    file = tmp_path / "checkpoints/last.ckpt"
    assert read_checkpoint(file) is None
    write_checkpoint(file, checkpoint(3))
    found = read_checkpoint(file)
    assert found is not None
    assert (found.plan, found.step, found.seconds) == (PLAN, 3, 1.5)
    assert torch.equal(found.model["w"], torch.arange(3.0)) and torch.equal(found.best["w"], torch.ones(3))
    assert found.checks == {5: {"stain": 0.75}}
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "last.ckpt"
    write_checkpoint(file, checkpoint(3))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"last\.ckpt.*No space left"):
        write_checkpoint(file, checkpoint(6))
    monkeypatch.undo()
    found = read_checkpoint(file)
    assert found is not None and found.step == 3


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps(Bomb(), protocol=2), "cut"])
def test_a_damaged_checkpoint_is_refused_and_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "last.ckpt"
    if content == "cut":
        write_checkpoint(file, checkpoint(3))
        content = file.read_bytes()[:-200]
    file.write_bytes(content)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot be resumed; start again with --force"):
        read_checkpoint(file)
    assert not (tmp_path / "exploded").exists()
