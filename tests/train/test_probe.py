from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from orinspect_edge_runtime.errors import InputError, OrinspectError
from orinspect_train.config import PretrainConfig
from orinspect_train.label_probe import Labelled, balanced_accuracy, fit_linear, probe_labels, read_labelled
from orinspect_train.pretrain import pretrain
from orinspect_train.probe import uniformity
from orinspect_train.probe_cli import probe as command
from orinspect_train.probe_defects import ALL_DEFECTS

Tiny = Callable[..., PretrainConfig]


def test_uniformity_is_that_of_the_paper() -> None:
    values = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    pairs = [np.exp(-2 * np.square(unit[i] - unit[j]).sum()) for i in range(40) for j in range(i)]
    assert uniformity(values) == pytest.approx(np.log(np.mean(pairs)), abs=1e-4)
    assert uniformity(np.ones((5, 3), np.float32)) == pytest.approx(0, abs=1e-6)


def blobs(sizes: tuple[int, ...], distance: float, dim: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return rng.normal(size=(len(labels), dim)) + distance * np.eye(len(sizes), dim)[labels], labels


@pytest.mark.parametrize("dim", [12, 300])
def test_a_linear_map_tells_blobs_apart_in_both_spaces(dim: int) -> None:
    values, labels = blobs((60, 60, 20), 6.0, dim)
    shown = np.arange(len(labels)) % 2 == 0
    guessed = fit_linear(values[shown], labels[shown] + 3, values[~shown])
    assert balanced_accuracy(labels[~shown] + 3, guessed) > 0.95


def test_balanced_accuracy_counts_classes_alike() -> None:
    assert balanced_accuracy(np.array([0] * 98 + [1] * 2), np.zeros(100, np.int64)) == 0.5


def labelled(sizes: tuple[int, ...], distance: float) -> tuple[Callable[[np.ndarray], np.ndarray], Labelled]:
    """Data whose pixels hold the row of an embedding to look up."""
    values, labels = blobs(sizes, distance)
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    names = tuple("abc"[: len(sizes)])
    return lambda rows: values[rows[:, 0, 0, 0]].astype(np.float32), Labelled(pixels, labels, names)


def test_labels_find_what_is_there_and_only_that() -> None:
    seen, blind = (probe_labels(*labelled((60, 60, 8), distance), seed=0) for distance in (7.0, 0.0))
    assert seen.classes == {"a": 60, "b": 60, "c": 8} and seen.chance == pytest.approx(1 / 3)
    assert set(seen.shots) == {1, 5}, "ten of the eight cannot be shown"
    for accuracy, least in ((seen.knn, 0.85), (seen.linear, 0.85), (seen.shots[5], 0.85), (seen.shots[1], 0.6)):
        assert accuracy.value > least and accuracy.least <= accuracy.value <= accuracy.most
    assert seen.shots[5].value > seen.shots[1].value
    for accuracy in (blind.knn, blind.linear, *blind.shots.values()):
        assert accuracy.value < 0.5 and accuracy.most - accuracy.least > 0.02
    assert probe_labels(*labelled((60, 60, 8), 7.0), seed=0) == seen


@pytest.mark.parametrize("kind", ALL_DEFECTS)
def test_every_defect_changes_a_textured_image_and_is_decided_by_its_seed(
    kind: str, textured: Callable[..., np.ndarray]
) -> None:
    for image in textured(4, side=96):
        one, again = (ALL_DEFECTS[kind](image, np.random.default_rng(3)) for _ in range(2))
        assert one.shape == image.shape and one.dtype == np.uint8
        assert (one == again).all() and np.abs(one.astype(int) - image).max() > 5
        assert (one == one[..., :1]).all(), "gray stays gray"


@pytest.fixture(scope="module")
def run(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("probe") / "run"
    pretrain(image_folder, folder, PretrainConfig(encoder="tiny_resnet", init="scratch", size=64, epochs=0))
    return folder


@pytest.fixture(scope="module")
def sorted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 dark and 12 bright images of noise."""
    folder, rng = tmp_path_factory.mktemp("sorted"), np.random.default_rng(0)
    for name, level in (("dark", 60), ("bright", 180)):
        (folder / name).mkdir()
        for number in range(12):
            Image.fromarray((level + rng.integers(0, 40, (32, 32))).astype(np.uint8)).save(
                folder / name / f"{number}.png"
            )
    return folder


def test_a_run_is_probed_from_the_command_line(run: Path, image_folder: Path, sorted_folder: Path) -> None:
    result = CliRunner().invoke(command, [str(run), str(image_folder), "--labels", str(sorted_folder), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["images"] == 24 and set(found["separation"]) == set(ALL_DEFECTS)
    assert set(found["embedded_separation"]) == set(ALL_DEFECTS)
    assert found["embedding_std"] > 0 and 1 <= found["effective_rank"] <= 24
    assert 0 <= found["alignment"] <= 4 and -4 <= found["uniformity"] <= 0
    assert found["labels"]["classes"] == {"bright": 12, "dark": 12} and found["labels"]["linear"]["value"] > 0.9
    words = CliRunner().invoke(command, [str(run), str(image_folder)])
    assert "drawn defect: scratch" in words.stdout and "labels" not in words.stdout


def test_wrong_folders_are_told(run: Path, image_folder: Path, tmp_path: Path, tiny: Tiny) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match="one subfolder a class"):
            read_labelled(folder, tiny())
    result = CliRunner().invoke(command, [str(tmp_path / "none"), str(image_folder)])
    assert isinstance(result.exception, OrinspectError) and "no such run" in str(result.exception)
