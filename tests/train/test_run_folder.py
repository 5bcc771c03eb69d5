from __future__ import annotations

import json
from pathlib import Path

import pytest

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import Skipped
from orinspect_train.config import PretrainConfig, read_config
from orinspect_train.run_folder import CONFIG, RECORD, SKIPPED, WEIGHTS, check_folder, is_finished, start_folder


def make_run(folder: Path, *, finished: bool) -> Path:
    start_folder(folder, PretrainConfig(), [])
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/last.ckpt").write_text("old")
    for name in (WEIGHTS, RECORD) if finished else ():
        (folder / name).write_text("old")
    return folder


def test_a_new_folder_holds_what_is_known_before_training(tmp_path: Path) -> None:
    check_folder(tmp_path / "a/run", resume=False, force=False)
    start_folder(tmp_path / "a/run", PretrainConfig(seed=7), [Skipped(Path("bad.png"), "bad.png: no")])
    assert read_config(tmp_path / "a/run" / CONFIG).seed == 7
    assert json.loads((tmp_path / "a/run" / SKIPPED).read_bytes()) == [{"path": "bad.png", "reason": "bad.png: no"}]


def test_a_run_is_replaced_only_when_told_and_then_wholly(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", finished=True)
    with pytest.raises(InputError, match="pass --resume to go on, --force to start again"):
        check_folder(run, resume=False, force=False)
    check_folder(run, resume=False, force=True)
    start_folder(run, PretrainConfig(), [])
    assert {path.name for path in run.iterdir()} == {CONFIG, SKIPPED}
    assert not is_finished(run)


@pytest.mark.parametrize("force", [True, False])
def test_what_is_no_run_is_never_removed(tmp_path: Path, force: bool) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="not a run, so --force does not remove it" if force else "exists already"):
        check_folder(tmp_path, resume=False, force=force)
    with pytest.raises(InputError):
        check_folder(tmp_path / "thesis.tex", resume=False, force=force)


def test_only_an_unfinished_run_is_resumed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run to resume; leave --resume out"):
        check_folder(tmp_path / "nothing", resume=True, force=False)
    check_folder(make_run(tmp_path / "half", finished=False), resume=True, force=False)
    with pytest.raises(InputError, match="is finished, nothing is left to resume"):
        check_folder(make_run(tmp_path / "whole", finished=True), resume=True, force=False)
