"""The ELPV solar cells as a dataset folder: real inspection images that `pip install elpv-dataset` brings.

2,624 electroluminescence images (300x300) of mono- and polycrystalline cells with a defect probability each.
Buerhop-Lutz et al. 2018; Deitsch et al. 2019, doi:10.1016/j.solener.2019.02.067. The images are CC BY-NC-SA 4.0: for
demonstration and research, never part of this project or of what is built with it.

Protocol, used by the demo and the benchmarks: good = probability 0, defective = probability >= 2/3, the cells between
are left out; a seeded 70 % of the good cells is for fitting, the rest of them and all defective cells are for testing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.errors import InputError

LICENCE = "ELPV dataset: CC BY-NC-SA 4.0 (attribution, non-commercial, share alike); see the package elpv-dataset"
FIT_SHARE = 0.7


@dataclass(frozen=True)
class Cell:
    """One cell: its image file, its defect probability (0, 1/3, 2/3, 1) and its type (`mono` or `poly`)."""

    path: Path
    probability: float
    kind: str

    @property
    def file_name(self) -> str:
        """Name in the dataset folder; it carries the type, because a folder of images has no other place for it."""
        return f"{self.kind}-{self.path.name}"


@dataclass(frozen=True)
class Split:
    """Good cells to fit on, good cells to test on, defective cells to test on."""

    fit: tuple[Cell, ...]
    good: tuple[Cell, ...]
    defective: tuple[Cell, ...]


def read_cells() -> list[Cell]:
    """All cells of the installed elpv-dataset, in its order. Raises InputError when its files are not as known."""
    import elpv_dataset

    root = Path(elpv_dataset.__file__).parent / "data"
    try:
        rows = [line.split() for line in (root / "labels.csv").read_text().splitlines() if line.strip()]
        return [Cell(root / name, float(probability), kind) for name, probability, kind in rows]
    except (OSError, ValueError) as error:
        raise InputError(f"{root}: not the elpv-dataset as known ({error}); install it again") from error


def split_cells(cells: list[Cell], seed: int = 0) -> Split:
    """The protocol's split for a seed."""
    good = [cell for cell in cells if cell.probability == 0]
    order = np.random.default_rng(seed).permutation(len(good))
    cut = int(FIT_SHARE * len(good))
    return Split(
        fit=tuple(good[i] for i in order[:cut]),
        good=tuple(good[i] for i in order[cut:]),
        defective=tuple(cell for cell in cells if cell.probability > 0.6),
    )


def write_dataset(split: Split, folder: Path) -> None:
    """Publish the split as FOLDER/train/good, FOLDER/test/good and FOLDER/test/defective (links to the images)."""
    parts = {"train/good": split.fit, "test/good": split.good, "test/defective": split.defective}
    with durable.new_folder(folder, replace=True) as partial:
        for name, cells in parts.items():
            (partial / name).mkdir(parents=True)
            for cell in cells:
                (partial / name / cell.file_name).symlink_to(cell.path)
