"""The student network: its shapes, what is left of patches that it foretells, and a run that has one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orinspect_edge_runtime.errors import InputError
from orinspect_train.config import PretrainConfig
from orinspect_train.encoder import Encoder
from orinspect_train.pretrain import pretrain
from orinspect_train.qat import finish
from orinspect_train.run_folder import RECORD, STUDENT, STUDENT_ENTRY, WEIGHTS
from orinspect_train.student import Standard, Student, StudiedEncoder, load_student
from orinspect_train.student_training import teach


@pytest.fixture
def taught(image_folder: Path, tiny: Callable[..., PretrainConfig], tmp_path: Path) -> Path:
    """A run with a student of few steps."""
    pretrain(image_folder, tmp_path / "run", tiny(epochs=0))
    teach(tmp_path / "run", image_folder, tmp_path / "taught", steps=20)
    return tmp_path / "taught"


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit", "test_convnext", "tiny_resnet"])
def test_it_foretells_the_grid_of_every_family(name: str) -> None:
    encoder = Encoder(name, 64).eval()
    student = Student(encoder)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        stages = encoder.stages(images)
        assert student(stages[student.layer]).shape == encoder.patch_map(stages).shape
        embedding, residuals = StudiedEncoder(encoder, student).eval()(images)
        plain, patches = encoder(images)
    assert residuals.shape == patches.shape
    assert torch.equal(embedding, plain)
    # What it reads is computed on the way to what it foretells.
    assert student.layer < max(encoder.layers)


def test_maps_are_measured_in_standard_deviations_of_each_channel() -> None:
    maps = torch.randn(8, 3, 5, 5) * torch.tensor([1.0, 10.0, 0.0]).view(1, 3, 1, 1) + 7
    standard = Standard(3)
    standard.fit(maps)
    found = standard(maps)
    assert found.mean((0, 2, 3)).abs().max() < 1e-4
    assert found.std((0, 2, 3))[:2].tolist() == pytest.approx([1, 1], abs=1e-3)
    assert found[:, 2].abs().max() == 0


def test_what_it_foretells_exactly_leaves_nothing() -> None:
    encoder = Encoder("test_resnet", 64).eval()
    student = Student(encoder).eval()
    with torch.inference_mode():
        stages = encoder.stages(torch.rand(4, 3, 64, 64))
        student.patches.fit(encoder.patch_map(stages))
        wanted = student.patches(encoder.patch_map(stages))
        student.layers = torch.nn.Sequential(_Always(wanted))
        assert student.residual_map(encoder, stages).abs().max() == 0


class _Always(torch.nn.Module):
    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.answer


def test_a_run_gives_its_student_back(taught: Path) -> None:
    studied, record = load_student(taught)
    again, _ = load_student(taught)
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(studied(images)[1], again(images)[1])
    assert not studied.training
    assert record[STUDENT_ENTRY]["steps"] == 20


def test_a_run_without_one_and_damaged_ones_are_refused(taught: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no student; train one with"):
        load_student(tmp_path / "run")
    content = bytearray((taught / STUDENT).read_bytes())
    content[-1] ^= 1
    (taught / STUDENT).write_bytes(content)
    with pytest.raises(InputError, match=r"student\.safetensors: not the weights that encoder\.json names"):
        load_student(taught)
    (taught / STUDENT).unlink()
    with pytest.raises(InputError, match="cannot be read"):
        load_student(taught)
    record = json.loads((taught / RECORD).read_bytes())
    (taught / STUDENT).write_bytes((taught / WEIGHTS).read_bytes())
    record[STUDENT_ENTRY]["weights_sha256"] = record["weights_sha256"]
    (taught / RECORD).write_text(json.dumps(record))
    with pytest.raises(InputError, match="does not fit the encoder"):
        load_student(taught)


def test_another_encoder_does_not_keep_it(taught: Path, image_folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("orinspect_train.qat.LEAST_GAIN", -1e9)
    finish(taught, image_folder, tmp_path / "int8", minutes=0.01)
    with pytest.raises(InputError, match="has no student"):
        load_student(tmp_path / "int8")
