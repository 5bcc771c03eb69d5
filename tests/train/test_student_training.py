"""`orinspect student`: a finished run in, one with a student out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from orinspect_edge_runtime.errors import CheckFailed, ConfigError, InputError
from orinspect_edge_runtime.learnt import fingerprint
from orinspect_edge_runtime.preprocess import fit_to_model, read_frame
from orinspect_train import student_training
from orinspect_train.config import PretrainConfig
from orinspect_train.pretrain import pretrain
from orinspect_train.run import load_encoder
from orinspect_train.run_folder import CONFIG, STUDENT, STUDENT_ENTRY, WEIGHTS
from orinspect_train.student_cli import student
from orinspect_train.student_training import teach

pytestmark = pytest.mark.usefixtures("on_processor")


@pytest.fixture
def run(image_folder: Path, tiny: Callable[..., PretrainConfig], tmp_path: Path) -> Path:
    pretrain(image_folder, tmp_path / "run", tiny(epochs=0))
    return tmp_path / "run"


def test_it_explains_unseen_images_and_more_so_with_more_steps(run: Path, image_folder: Path, tmp_path: Path) -> None:
    few = teach(run, image_folder, tmp_path / "few", steps=10)
    many = teach(run, image_folder, tmp_path / "many", steps=80)
    assert many.unexplained < 0.9 * few.unexplained
    assert many.unexplained_learnt < many.unexplained < 1
    assert (many.learnt, many.held_out, many.skipped, many.steps) == (19, 5, 0, 80)
    assert set(many.drawn_defects) == {"padim", "student"}
    assert all(0 <= value <= 1 for value in many.drawn_defects.values())


def test_the_encoder_stays_and_the_images_are_noted(run: Path, image_folder: Path, tmp_path: Path) -> None:
    teach(run, image_folder, tmp_path / "out", steps=10)
    for name in (CONFIG, WEIGHTS):
        assert (tmp_path / "out" / name).read_bytes() == (run / name).read_bytes()
    _, before = load_encoder(run)
    _, after = load_encoder(tmp_path / "out")
    entry = after.pop(STUDENT_ENTRY)
    assert after == before
    spec = PretrainConfig(size=64).preprocess
    files = [fingerprint(fit_to_model(read_frame(path, spec).pixels, spec)) for path in image_folder.iterdir()]
    assert len(set(entry["images"])) == 19
    assert set(entry["images"]) < set(files)


def test_a_seed_gives_the_same_student_and_another_seed_another(run: Path, image_folder: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        teach(run, image_folder, tmp_path / name, steps=10, seed=seed)
    one, same, other = ((tmp_path / name / STUDENT).read_bytes() for name in ("one", "same", "other"))
    assert one == same != other


def test_minutes_become_steps(run: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by a second each time it is read: three timed steps take one."""
    clock = itertools.count()
    ticking = SimpleNamespace(monotonic=lambda: next(clock), perf_counter=lambda: next(clock))
    monkeypatch.setattr(student_training, "time", ticking)
    taught = teach(run, image_folder, tmp_path / "timed", minutes=0.5)
    assert 50 < taught.steps < 100
    teach(run, image_folder, tmp_path / "counted", steps=taught.steps)
    assert (tmp_path / "timed" / STUDENT).read_bytes() == (tmp_path / "counted" / STUDENT).read_bytes()


def test_too_few_minutes_are_told_before_training(run: Path, image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pass 0\.\d --minutes more"):
        teach(run, image_folder, tmp_path / "out", minutes=0.0)
    assert not (tmp_path / "out").exists()


def test_one_that_learns_nothing_is_not_written(
    run: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(student_training, "RATE", 0.0)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckFailed, match="explains nothing"):
        teach(run, image_folder, tmp_path / "out", steps=10)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_kill_before_the_end_leaves_nothing(
    run: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(student_training, "save_encoder", killed)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        teach(run, image_folder, tmp_path / "out", steps=10)
    assert sorted(tmp_path.rglob("*")) == before


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(student, [str(a) for a in arguments], standalone_mode=False)


def test_on_the_command_line(run: Path, image_folder: Path, tmp_path: Path) -> None:
    made = invoke(run, image_folder, "--out", tmp_path / "out", "--steps", 10, "--json")
    assert made.exception is None
    assert json.loads(made.stdout)["run"] == str(tmp_path / "out")
    again = invoke(run, image_folder, "--out", tmp_path / "out")
    assert isinstance(again.exception, InputError)
    replaced = invoke(run, image_folder, "--out", tmp_path / "out", "--steps", 10, "--force")
    assert replaced.exception is None
    assert "19 images learnt from, 5 held out; 10 steps" in replaced.stdout
    assert "AUROC: padim" in replaced.stdout


def test_wrong_input_is_told_and_writes_nothing(run: Path, image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    cases = [
        (tmp_path / "nowhere", image_folder, tmp_path / "out", (), "no such run"),
        (run, tmp_path / "nowhere", tmp_path / "out", (), "nowhere"),
        (run, image_folder, tmp_path / "mine", ("--force",), "not a run"),
        (run, image_folder, tmp_path / "out", ("--steps", 3, "--minutes", 1), "not both"),
    ]
    for source, data, out, options, message in cases:
        result = invoke(source, data, "--out", out, *options)
        assert result.exception is not None and message in str(result.exception), result.output
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "mine" / "file").read_text() == "mine"
