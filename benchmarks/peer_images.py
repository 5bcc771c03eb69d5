"""The solar cells (ELPV) as JPEG files of 900x900 pixels, such as a camera's, for a comparison with anomalib."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from orinspect_train.solar_cells import Cell, read_cells, split_cells

SOURCE = 900


@dataclass
class Files:
    """Image files to learn from and to test on; labels of the latter, True: defective. Good and defective take turns."""

    known: list[Path]
    test: list[Path]
    labels: Any


def image_files(folder: Path, known: int, test: int) -> Files:
    """Files of so many good cells to learn from and of cells to test on; those that are not there are made."""
    folder.mkdir(exist_ok=True)
    split = split_cells(read_cells())
    cells = [cell for pair in zip(split.good, split.defective, strict=False) for cell in pair][:test]
    labels = np.array([cell.probability > 0.6 for cell in cells])
    return Files([_file(folder, cell) for cell in split.fit[:known]], [_file(folder, cell) for cell in cells], labels)


def _file(folder: Path, cell: Cell) -> Path:
    path = folder / f"{cell.path.stem}.jpg"
    if not path.exists():
        big = Image.open(cell.path).convert("RGB").resize((SOURCE, SOURCE), Image.Resampling.BICUBIC)
        big.save(path, quality=90)
    return path
