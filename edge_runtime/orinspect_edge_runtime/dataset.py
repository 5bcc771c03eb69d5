"""Labelled images for evaluation, read from folders as they lie on disk.

DATASET/test/good/*.png        MVTec AD layout: `good` against every other folder, named for the kind of defect
DATASET/test/scratch/*.png
DATASET/good/*.png             or the same without `test`
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import list_images

GOOD_NAMES = frozenset({"good", "ok", "normal"})


@dataclass(frozen=True)
class LabelledImage:
    """An image file, the folder that names its kind, and whether that kind is a defect."""

    path: Path
    kind: str
    is_defective: bool


def read_dataset(folder: Path) -> list[LabelledImage]:
    """Test images of a dataset, good ones first. Raises InputError unless there are good and defective ones."""
    try:
        root = folder / "test" if (folder / "test").is_dir() else folder
        kinds = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: no folder that can be read ({error.strerror})") from error
    good = [path for path in kinds if path.name.lower() in GOOD_NAMES]
    defects = [path for path in kinds if path not in good and path.name not in ("train", "ground_truth")]
    if len(good) != 1 or not defects:
        raise InputError(f"{root}: needs one folder named good and at least one folder of defective images beside it")
    return [LabelledImage(path, kind.name, kind not in good) for kind in good + defects for path in list_images([kind])]
