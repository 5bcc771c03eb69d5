from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orinspect_edge_runtime.errors import OrinspectError
from orinspect_train import alignment
from orinspect_train.cli import pretrain
from orinspect_train.config import METHOD_NAMES, PretrainConfig, read_config, to_toml
from orinspect_train.run_folder import CONFIG, RECORD, WEIGHTS


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(pretrain, [str(argument) for argument in arguments])


@pytest.fixture
def config_file(tmp_path: Path, tiny: Callable[..., PretrainConfig]) -> Path:
    file = tmp_path / "tiny.toml"
    file.write_bytes(to_toml(tiny(epochs=1)))
    return file


def test_a_run_from_the_command_line(image_folder: Path, config_file: Path, tmp_path: Path) -> None:
    result = invoke(image_folder, "--out", tmp_path / "run", "--config", config_file, "--seed", 3, "--json")
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.stdout)
    assert (outcome["images"], outcome["skipped"], outcome["steps"]) == (24, 0, 5)
    assert read_config(tmp_path / "run" / CONFIG).seed == 3
    assert "embedding_std" in result.stderr and "effective_rank" in result.stderr


def test_the_result_in_words(image_folder: Path, config_file: Path, tmp_path: Path) -> None:
    result = invoke(image_folder, "--out", tmp_path / "run", "--config", config_file, "--epochs", 0)
    assert result.exit_code == 0, result.output
    assert "24 images, 0 steps" in result.stdout
    line = f"orinspect export {tmp_path / 'run'} --out BUNDLE --calibration {image_folder}"
    assert line in result.stdout


def test_it_says_which_scorers_see_what_was_learnt(
    image_folder: Path, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alignment, "has_helped", lambda before, after: True)
    scratch = invoke(image_folder, "--out", tmp_path / "run", "--config", config_file)
    weights = ("--init", tmp_path / "run" / WEIGHTS)
    pretrained = invoke(image_folder, "--out", tmp_path / "again", "--config", config_file, *weights)
    for result in (scratch, pretrained):
        assert result.exit_code == 0 and "the adapted encoder is kept" in result.stdout, result.output
    hint = "fit with  --scorer padim_mahalanobis  (or mahalanobis, knn)"
    assert hint not in scratch.stdout and hint in pretrained.stdout


def test_a_resumed_run_keeps_its_configuration(image_folder: Path, config_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    invoke(image_folder, "--out", run, "--config", config_file)
    (run / RECORD).unlink()
    contradiction = invoke(image_folder, "--out", run, "--resume", "--size", 128)
    assert isinstance(contradiction.exception, OrinspectError)
    assert "--size contradicts" in str(contradiction.exception)
    again = invoke(image_folder, "--out", run, "--resume", "--seed", 0, "--config", config_file)
    assert again.exit_code == 0, again.output
    assert (run / RECORD).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--minutes", 1, "--epochs", 1), "not both"),
        (("--size", 100), "multiple of 32"),
        (("--anomalies", "scratches"), "anomalies is 'scratches': use one of auto, damage, other"),
        (("--method", "simsiam"), "use one of"),
        (("--encoder", "tf_efficientnet_lite"), "did you mean 'tf_efficientnet_lite"),
        (("--init", "nowhere.safetensors"), "nowhere.safetensors: cannot be read"),
        (("--resume",), "no run to resume"),
    ],
)
def test_wrong_usage_is_one_line_and_writes_nothing(
    arguments: tuple[object, ...], message: str, image_folder: Path, tmp_path: Path
) -> None:
    result = invoke(image_folder, "--out", tmp_path / "run", *arguments)
    assert isinstance(result.exception, OrinspectError)
    assert message in str(result.exception) and "\n" not in str(result.exception)
    assert result.exception.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_resume_and_force_exclude_each_other(image_folder: Path, tmp_path: Path) -> None:
    result = invoke(image_folder, "--out", tmp_path, "--resume", "--force")
    assert result.exit_code == 2 and "pass one of them" in result.stderr


def test_advice_is_by_damage_alone(image_folder: Path) -> None:
    result = invoke(image_folder, "--advise", "--anomalies", "other")
    assert result.exit_code == 2 and "--advise judges by drawn damage" in result.stderr


def test_help_has_an_example() -> None:
    assert "Example:  orinspect pretrain" in invoke("--help").stdout


def test_a_run_is_resumed_with_the_file_it_was_started_with_and_with_no_other(
    image_folder: Path, config_file: Path, tmp_path: Path
) -> None:
    run, other = tmp_path / "run", tmp_path / "other.toml"
    config_file.write_text(config_file.read_text() + "\n[synthetic_defects]\npositive_weight = 2.0\n")
    other.write_text(config_file.read_text().replace("2.0", "3.0"))
    assert invoke(image_folder, "--out", run, "--config", config_file).exit_code == 0
    (run / RECORD).unlink()
    result = invoke(image_folder, "--out", run, "--config", other, "--resume")
    assert isinstance(result.exception, OrinspectError) and "contradicts" in str(result.exception)
    result = invoke(image_folder, "--out", run, "--config", config_file, "--resume")
    assert result.exit_code == 0, result.output


def test_the_help_names_every_method() -> None:
    shown = invoke("--help").output
    assert all(name in shown for name in METHOD_NAMES)
