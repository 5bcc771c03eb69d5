"""The layout of VisA (Zou et al. 2022, arXiv 2207.14315) as its archive unpacks: one folder a category, tables beside.

ROOT/CATEGORY/Data/Images/Normal/0000.JPG, Images/Anomaly/000.JPG, Masks/Anomaly/000.png
ROOT/CATEGORY/image_anno.csv   image,label,mask               label: normal, or the kinds of defect in it
ROOT/split_csv/1cls.csv        object,split,label,image,mask  which images are for training and which for tests
Paths in the tables are relative to ROOT.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.labelled import LabelledImage

SPLIT = Path("split_csv", "1cls.csv")


def is_visa(folder: Path) -> bool:
    """Whether a folder is a category of VisA as it lies on disk."""
    try:
        return (folder / "Data" / "Images").is_dir()
    except OSError as error:
        raise InputError(f"{folder}: no folder that can be read ({error.strerror})") from error


def read_visa(category: Path, split: str) -> list[LabelledImage]:
    """Images of a split (`train` or `test`), good ones first, with kinds of defect if image_anno.csv tells them.

    Raises InputError when the split's table is missing or damaged, lists a file that is missing, or has no images.
    """
    category = category.resolve()
    root, kinds = category.parent, _kinds(category)
    found = []
    for row in _rows(root / SPLIT, ("object", "split", "label", "image", "mask")):
        if row["object"] != category.name or row["split"] != split:
            continue
        bad = row["label"] != "normal"
        masks = (root / row["mask"],) if bad and row["mask"] else ()
        kind = kinds.get(row["image"], "anomaly") if bad else "normal"
        found.append(LabelledImage(root / row["image"], kind, bad, masks))
    if not found or (split == "test" and len({image.is_defective for image in found}) < 2):
        raise InputError(f"{root / SPLIT}: lists no {split} images of {category.name}, good and defective ones")
    _refuse_missing(path for image in found for path in (image.path, *image.masks))
    return sorted(found, key=lambda image: (image.is_defective, str(image.path)))


def _kinds(category: Path) -> dict[str, str]:
    """Kind of each image by its path in the tables; empty when the category has no image_anno.csv."""
    table = category / "image_anno.csv"
    return {row["image"]: row["label"] for row in _rows(table, ("image", "label"))} if table.exists() else {}


def _rows(table: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{table}: VisA's table cannot be read ({reason}); unpack the whole archive") from error
    if not rows or any(row.get(name) is None for row in rows for name in columns):
        raise InputError(f"{table}: needs the columns {', '.join(columns)}; unpack the archive again")
    return rows


def _refuse_missing(paths: Iterable[Path]) -> None:
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: listed in {SPLIT}, but missing; unpack the whole archive")
