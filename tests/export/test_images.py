"""The choice of images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import PreprocessSpec
from orinspect_export.images import FEWEST, choose_images

SPEC = PreprocessSpec(64, 64)


def test_the_same_seed_draws_the_same_images(image_folder: Path) -> None:
    first, again, other = (choose_images(image_folder, SPEC, seed) for seed in (0, 0, 1))
    assert first.names == again.names
    assert np.array_equal(first.calibration, again.calibration)
    assert first.names != other.names


def test_no_image_is_on_both_sides(image_folder: Path, frames: Any) -> None:
    chosen = choose_images(image_folder, SPEC)
    together = np.concatenate([chosen.calibration, chosen.held_out])
    assert together.shape == frames.shape
    assert len(np.unique(together.reshape(len(together), -1), axis=0)) == len(together)
    assert len(chosen.names) == len(chosen.calibration)
    assert all(not Path(name).is_absolute() for name in chosen.names)


def test_copies_count_once(image_folder: Path, tmp_path: Path) -> None:
    for index in range(40):
        shutil.copy(image_folder / f"{index % 5:03d}.png", tmp_path / f"{index}.png")
    with pytest.raises(InputError, match=f"5 different images; an export needs {FEWEST}"):
        choose_images(tmp_path, SPEC)


def test_the_fewest_are_shared_out(image_folder: Path, tmp_path: Path) -> None:
    for index in range(FEWEST):
        shutil.copy(image_folder / f"{index:03d}.png", tmp_path / f"{index}.png")
    chosen = choose_images(tmp_path, SPEC)
    assert (len(chosen.calibration), len(chosen.held_out)) == (12, 4)


def test_an_unreadable_image_is_named(image_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(image_folder, tmp_path / "images")
    (tmp_path / "images/zz.png").write_bytes(b"no image")
    assert "zz.png" in choose_images(tmp_path / "images", SPEC).skipped[0].reason


def test_no_images_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images here"):
        choose_images(tmp_path, SPEC)


def test_other_sizes_are_fitted_to_the_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(FEWEST):
        Image.fromarray(rng.integers(0, 256, (50, 90), dtype=np.uint8)).save(tmp_path / f"{index}.png")
    assert choose_images(tmp_path, SPEC).calibration.shape[1:] == (64, 64, 3)


@pytest.mark.parametrize("level", [0, 255])
def test_images_that_show_nothing_are_named(level: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(40):
        noise = rng.integers(0, 3, (64, 64, 3))
        Image.fromarray(np.abs(level - noise).astype(np.uint8)).save(tmp_path / f"{index:02}.png")
    with pytest.raises(
        InputError, match=r"40 of 40 images .* show nothing \(.*\.png: blank, brightness .* lens covered"
    ):
        choose_images(tmp_path, SPEC)


def test_a_few_blank_images_are_left_out_and_told(image_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(image_folder, tmp_path / "images")
    Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / "images" / "dark.png")
    chosen = choose_images(tmp_path / "images", SPEC)
    assert "dark.png" not in chosen.names
    assert any("dark.png: blank" in skipped.reason for skipped in chosen.skipped)
