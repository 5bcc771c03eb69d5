"""Fashion-MNIST as Debian ships it (apt install dataset-fashion-mnist): 70,000 pictures of clothes, 28 pixels a side."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FOLDER = Path("/usr/share/datasets/fashion-mnist")
SIDE, MARGIN = 28, 2
CLASSES = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


class Clothes(NamedTuple):
    """pixels: uint8 [N, 32, 32, 3], the pictures in a black margin of 2 pixels. labels: [N], places in CLASSES."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


def read(part: str) -> Clothes:
    """All of `train` (60,000) or `t10k` (10,000), in the files' order. Raises FileNotFoundError naming the package."""
    gray, labels = read_gray(part)
    framed = np.pad(gray, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))
    return Clothes(np.repeat(framed[..., None], 3, axis=3), labels)


def read_gray(part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The pictures as they are, uint8 [N, 28, 28], and their labels [N]."""
    pixels = _idx(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, SIDE, SIDE)
    return pixels, _idx(f"{part}-labels-idx1-ubyte.gz", 8).astype(np.int64)


def write_pictures(pixels: NDArray[np.uint8], folder: Path) -> None:
    """One PNG a picture of uint8 [N, H, W, 3], named by its number."""
    folder.mkdir(parents=True)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture[..., 0]).save(folder / f"{number:05}.png", compress_level=1)


def _idx(name: str, header: int) -> NDArray[np.uint8]:
    """The bytes of an IDX file behind its header (http://yann.lecun.com/exdb/mnist)."""
    file = FOLDER / name
    if not file.exists():
        raise FileNotFoundError(f"{file}: not there; apt install dataset-fashion-mnist")
    return np.frombuffer(gzip.decompress(file.read_bytes())[header:], np.uint8)
