from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orinspect_edge_runtime.errors import InputError
from orinspect_train.config import PretrainConfig
from orinspect_train.images import read_images

Tiny = Callable[..., PretrainConfig]


def write_pictures(folder: Path, count: int, side: int = 20) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8)).save(folder / f"{number:02d}.png")


def test_every_kind_of_picture_becomes_a_frame(tmp_path: Path, tiny: Tiny) -> None:
    write_pictures(tmp_path, 6)
    Image.fromarray(np.full((20, 30), 40_000, np.uint16)).save(tmp_path / "deep.png")
    for mode in ("L", "RGB", "RGBA", "P", "CMYK"):
        Image.new(mode, (30, 20), 100 if mode in "LP" else (100,) * len(mode)).save(tmp_path / f"{mode}.tiff")
    images = read_images(tmp_path, tiny())
    assert images.pixels.shape == (12, 64, 64, 3) and images.pixels.dtype == np.uint8
    assert not images.skipped
    deep = images.pixels[[path.name for path in images.paths].index("deep.png")]
    assert (deep == 40_000 >> 8).all()


def test_what_is_not_read_in_time_is_left_out(tmp_path: Path, tiny: Tiny) -> None:
    write_pictures(tmp_path, 20)
    every, some = read_images(tmp_path, tiny()), read_images(tmp_path, tiny(), deadline=0.0)
    assert len(every.pixels) == 20 and len(some.pixels) == 8
    assert some.paths == every.paths[:8] and (some.pixels == every.pixels[:8]).all()


@pytest.mark.parametrize(
    ("name", "content"),
    [("text.jpg", b"not a picture"), ("empty.png", b""), ("cut.png", None), ("dot.png", None)],
)
def test_an_unreadable_file_is_skipped_and_named(tmp_path: Path, tiny: Tiny, name: str, content: bytes | None) -> None:
    write_pictures(tmp_path, 20)
    whole = (tmp_path / "00.png").read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    if name == "dot.png":
        Image.new("L", (1, 1)).save(tmp_path / name)
    images = read_images(tmp_path, tiny())
    assert len(images.pixels) == len(images.paths) == 20
    assert [skipped.path.name for skipped in images.skipped] == [name]
    assert name in images.skipped[0].reason


def test_a_folder_with_over_five_percent_unreadable_is_refused(tmp_path: Path, tiny: Tiny) -> None:
    write_pictures(tmp_path, 20)
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_text("no")
    with pytest.raises(InputError, match=r"2 of 22 images cannot be used.*\.jpg"):
        read_images(tmp_path, tiny())


def test_too_few_images_are_refused(tmp_path: Path, tiny: Tiny) -> None:
    with pytest.raises(InputError, match="no images here"):
        read_images(tmp_path, tiny())
    write_pictures(tmp_path, 7)
    with pytest.raises(InputError, match="7 readable images; pretraining needs at least 8"):
        read_images(tmp_path, tiny())


def test_the_seed_draws_which_images_are_used_and_held_out(image_folder: Path, tiny: Tiny) -> None:
    one, again, other = (read_images(image_folder, tiny(max_images=10, seed=seed)) for seed in (1, 1, 2))
    assert one.digest == again.digest != other.digest
    assert one.paths == again.paths and len(set(one.paths)) == 10
    training, held_out = one.split(0.3)
    assert (len(training), len(held_out)) == (7, 3)


def test_colour_is_noticed(tmp_path: Path, image_folder: Path, tiny: Tiny) -> None:
    write_pictures(tmp_path, 8)
    Image.new("RGB", (20, 20), (10, 10, 11)).save(tmp_path / "tinted.png")
    assert not read_images(tmp_path, tiny()).gray
    assert read_images(image_folder, tiny()).gray
