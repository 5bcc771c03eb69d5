"""`orinspect qat`: a finished run in, one whose features survive rounding out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner, Result

from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_train import qat as qat_module
from orinspect_train.config import PretrainConfig
from orinspect_train.pretrain import pretrain
from orinspect_train.qat import finish
from orinspect_train.qat_cli import qat
from orinspect_train.run import load_encoder


@pytest.fixture(autouse=True)
def _second_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by a second each time it is read: as many steps on a busy machine as on an idle one."""
    clock = itertools.count()
    monkeypatch.setattr(qat_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(qat_module, "RATE", 5e-4)


@pytest.fixture
def run(image_folder: Path, tiny: Callable[..., PretrainConfig], tmp_path: Path) -> Path:
    pretrain(image_folder, tmp_path / "run", tiny(epochs=0))
    return tmp_path / "run"


def test_rounding_costs_less_afterwards_and_the_run_can_be_opened(
    run: Path, image_folder: Path, tmp_path: Path
) -> None:
    shares: list[float] = []
    done = finish(run, image_folder, tmp_path / "out", minutes=1.5, report=lambda share, text: shares.append(share))
    assert done.rounding_after < 0.9 * done.rounding_before
    assert done.steps == len(shares) > 0
    assert shares == sorted(shares)
    before, after = load_encoder(run), load_encoder(tmp_path / "out")
    assert after[1]["qat"]["rounding_after"] == done.rounding_after
    assert after[1]["preprocess"] == before[1]["preprocess"]
    weights = [encoder.trunk.state_dict() for encoder, _ in (before, after)]
    assert weights[0].keys() == weights[1].keys()
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_without_a_gain_nothing_is_written(
    run: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qat_module, "RATE", 0.0)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckFailed, match="no gain"):
        finish(run, image_folder, tmp_path / "out", minutes=0.2)
    assert sorted(tmp_path.rglob("*")) == before


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(qat, [str(a) for a in arguments], standalone_mode=False)


def test_on_the_command_line(run: Path, image_folder: Path, tmp_path: Path) -> None:
    made = invoke(run, image_folder, "--out", tmp_path / "out", "--minutes", 1.5, "--json")
    assert made.exception is None
    assert json.loads(made.stdout)["run"] == str(tmp_path / "out")
    again = invoke(run, image_folder, "--out", tmp_path / "out")
    assert isinstance(again.exception, InputError)
    replaced = invoke(run, image_folder, "--out", tmp_path / "out", "--minutes", 1.5, "--force")
    assert replaced.exception is None
    assert "standard deviations before" in replaced.stdout


def test_wrong_input_is_told_and_writes_nothing(run: Path, image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    cases = [
        (tmp_path / "nowhere", image_folder, tmp_path / "out", (), "no such run"),
        (run, tmp_path / "nowhere", tmp_path / "out", (), "nowhere"),
        (run, image_folder, tmp_path / "mine", ("--force",), "not a run"),
    ]
    for source, data, out, options, message in cases:
        result = invoke(source, data, "--out", out, *options)
        assert isinstance(result.exception, InputError), result.output
        assert message in str(result.exception)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "mine" / "file").read_text() == "mine"
