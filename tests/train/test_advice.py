from __future__ import annotations

import json
import shlex
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_train import budget, keeper
from orinspect_train.advice import Advice, advise, pixel_embedding, pixel_patches, pretexts
from orinspect_train.advice_table import command
from orinspect_train.budget import Speed
from orinspect_train.cli import pretrain
from orinspect_train.config import PretrainConfig, to_toml

Tiny = Callable[..., PretrainConfig]
NAMES = ["test_efficientnet, untrained", "tf_efficientnet_lite0, ImageNet", "raw pixels"]


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A day of time, of which each step is said to take an hour; temporary files go to the folder returned."""
    monkeypatch.setattr(budget, "probe_speed", lambda *_: Speed("fp32", 3600.0))
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def by_name(found: Advice) -> dict[str, Any]:
    return {row.name: row for row in found.rows}


def test_every_candidate_is_measured_and_nothing_is_left(few_steps: Path, image_folder: Path, tiny: Tiny) -> None:
    found = advise(image_folder, tiny(minutes=24 * 60.0), time.monotonic())
    rows = by_name(found)
    assert sorted(rows) == sorted([*NAMES, "synthetic_defects", "densecl", found_third(found)])
    assert found.images == 24 and found.held_out == 6 and not found.left_out
    # A third of the day, half of what is left, and all of it; the start and the check after it take less than a step.
    assert [rows[name].steps for name in ("synthetic_defects", "densecl", found_third(found))] == [7, 11, 23]
    assert all(row.mean.least <= row.mean.value <= row.mean.most for row in rows.values())
    means = [row.mean.value for row in found.rows]
    assert means == sorted(means, reverse=True) and len(set(means)) > 2
    assert rows["synthetic_defects"].flattered and not rows["densecl"].flattered
    assert [row.name for row in found.rows if row.gain is None] == [NAMES[0]]
    assert not list(few_steps.iterdir())


def found_third(found: Advice) -> str:
    return next(row.name for row in found.rows if row.name in ("byol", "rotation"))


def test_without_time_the_pretexts_are_left_out_and_named(image_folder: Path, tiny: Tiny) -> None:
    found = advise(image_folder, tiny(minutes=1.0), time.monotonic() - 3600)
    assert sorted(by_name(found)) == sorted(NAMES)
    assert found.left_out[:2] == ["synthetic_defects", "densecl"] and len(found.left_out) == 3
    assert found.choice["epochs"] == 0


def test_an_interruption_leaves_nothing(
    few_steps: Path, image_folder: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(keeper.Keeper, "_log", pressed)
    with pytest.raises(KeyboardInterrupt):
        advise(image_folder, tiny(minutes=24 * 60.0), time.monotonic())
    assert not list(few_steps.iterdir())


def test_a_training_that_collapses_is_a_row_of_its_own(
    few_steps: Path, image_folder: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collapsed(*_: Any) -> None:
        raise CheckFailed("step 3: the embeddings collapsed")

    monkeypatch.setattr(keeper.Keeper, "_log", collapsed)
    found = advise(image_folder, tiny(minutes=24 * 60.0), time.monotonic())
    assert by_name(found)["densecl"].failed == "step 3: the embeddings collapsed"
    assert found.rows[-1].mean is None and found.choice["epochs"] == 0


def test_wrong_options_are_said_before_anything_is_read(tmp_path: Path, tiny: Tiny) -> None:
    with pytest.raises(InputError, match="no installed package brings ImageNet weights for 'test_efficientnet'"):
        advise(tmp_path / "nowhere", tiny(init="imagenet"), time.monotonic())


@pytest.mark.parametrize(
    ("fields", "policy", "expected"),
    [
        ({}, "gray", ["synthetic_defects", "densecl", "byol"]),
        ({}, "object_upright", ["synthetic_defects", "densecl", "rotation"]),
        ({"method": "vicreg"}, "gray", ["vicreg", "synthetic_defects", "densecl"]),
        ({"options": {"patch_weight": 2.0}}, "gray", ["synthetic_defects"]),
    ],
)
def test_which_pretexts_are_tried(fields: dict[str, Any], policy: str, expected: list[str], tiny: Tiny) -> None:
    assert pretexts(tiny(**fields), policy) == expected


def test_raw_pixels_are_cells_of_block_means() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), np.uint8)
    patches = pixel_patches(images, gray=False)
    assert patches.shape == (2, 8, 48)
    # Row 1 and column 2 of the cells; in it, the block at row 3 and column 1.
    block = images[1, 16 + 12 : 16 + 16, 32 + 4 : 32 + 8].mean((0, 1)) / 255
    np.testing.assert_allclose(patches[1, 4 + 2].reshape(4, 4, 3)[3, 1], block, rtol=1e-5)
    assert pixel_patches(images, gray=True).shape == (2, 8, 16)
    cell = images[1, 16:32, 32:48].mean((0, 1)) / 255
    np.testing.assert_allclose(pixel_embedding(images)[1].reshape(2, 4, 3)[1, 2], cell, rtol=1e-5)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(pretrain, [str(argument) for argument in arguments])


def test_the_command_line_prints_one_table_and_what_to_run_next(
    few_steps: Path, image_folder: Path, tmp_path: Path, tiny: Tiny
) -> None:
    file, run = tmp_path / "tiny.toml", tmp_path / "run"
    file.write_bytes(to_toml(tiny()))
    arguments = (image_folder, "--advise", "--config", file, "--minutes", 24 * 60, "--out", run)
    shown = invoke(*arguments)
    assert shown.exit_code == 0, shown.output
    assert all(name in shown.stdout for name in (*NAMES, "synthetic_defects*", "by PaDiM", "stain"))
    following = shown.stdout.splitlines()[-1]
    assert following.startswith(f"next:  orinspect pretrain {image_folder} --out {run} --config {file} ")
    found = json.loads(invoke(*arguments, "--json").stdout)
    assert f"next:  {found['next']}" == following and found["words"][0] in shown.stdout
    assert not run.exists()
    done = invoke(*shlex.split(found["next"])[2:], *([] if "--epochs" in found["next"] else ["--epochs", 1]))
    assert done.exit_code == 0, done.output


def test_advice_goes_by_minutes(image_folder: Path) -> None:
    result = invoke(image_folder, "--advise", "--epochs", 1)
    assert result.exit_code == 2 and "leave --epochs out" in result.stderr


@pytest.mark.parametrize(
    ("given", "choice", "words"),
    [
        ({"out": "RUN"}, {"method": "byol"}, "--out RUN --method byol"),
        ({"out": "RUN", "config": None, "size": 64}, {"epochs": 0}, "--out RUN --size 64 --epochs 0"),
        ({"out": "a b", "method": "vicreg"}, {"init": "scratch", "epochs": 0}, "--out 'a b' --init scratch --epochs 0"),
        ({"out": "RUN", "method": "vicreg"}, {"method": "byol"}, "--out RUN --method byol"),
        ({"out": "RUN", "tensorboard": True}, {"epochs": 0}, "--out RUN --tensorboard --epochs 0"),
    ],
)
def test_the_command_keeps_the_options_given(given: dict[str, Any], choice: dict[str, Any], words: str) -> None:
    assert command(Path("good"), given, choice) == f"orinspect pretrain good {words}"
