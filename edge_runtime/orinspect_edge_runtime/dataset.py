"""Labelled images for evaluation, read from folders as they lie on disk: kinds of defect and masks where there are any.

DATASET/test/KIND/NAME.png, ground_truth/KIND/NAME_mask.png              MVTec AD (a category of it, like all below)
DATASET/test/KIND/NAME.png, ground_truth/KIND/NAME/000.png, 001.png ...  MVTec LOCO AD: one mask a defect
DATASET/test_public/KIND/NAME.png, .../ground_truth/KIND/NAME_mask.png   MVTec AD 2 (its private tests have no labels)
DATASET/Data/Images/Anomaly/..., ../split_csv/1cls.csv                   VisA, see visa.py
DATASET/KIND/NAME.png, ground_truth/KIND/NAME[_mask].png                 plain folders, with or without masks
"""

from __future__ import annotations

from pathlib import Path

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.labelled import LabelledImage
from orinspect_edge_runtime.preprocess import IMAGE_SUFFIXES, list_images
from orinspect_edge_runtime.visa import is_visa, read_visa

GOOD_NAMES = frozenset({"good", "ok", "normal"})
TEST_FOLDERS = ("test", "test_public")
# Beside `good` in the plain layout and in MVTec AD 2, and no kinds of defect.
OTHER_FOLDERS = frozenset({"train", "validation", "ground_truth"})


def read_dataset(folder: Path) -> list[LabelledImage]:
    """Test images of a dataset, good ones first. Raises InputError unless there are good and defective ones."""
    if is_visa(folder):
        return read_visa(folder, "test")
    try:
        root = next((folder / name for name in TEST_FOLDERS if (folder / name).is_dir()), folder)
        kinds = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: no folder that can be read ({error.strerror})") from error
    good = [path for path in kinds if path.name.lower() in GOOD_NAMES]
    defects = [path for path in kinds if path not in good and path.name not in OTHER_FOLDERS]
    if len(good) != 1 or not defects:
        _refuse_collection(folder, kinds)
        raise InputError(f"{root}: needs one folder named good and at least one folder of defective images beside it")
    truths = [truth for truth in (root / "ground_truth", folder / "ground_truth") if truth.is_dir()][:1]
    return [
        LabelledImage(path, kind.name, kind not in good, _masks(path, kind, truths) if kind not in good else ())
        for kind in good + defects
        for path in list_images([kind])
    ]


def training_images(folder: Path) -> list[Path]:
    """Good images to fit on: the training part of a dataset in one of these layouts, else every image of the folder.

    Raises InputError when there are none, so that a dataset's defects are never fitted on.
    """
    if is_visa(folder):
        return [image.path for image in read_visa(folder, "train")]
    if any((folder / name).is_dir() for name in TEST_FOLDERS):
        good = [p for p in sorted(folder.glob("train/*")) if p.is_dir() and p.name.lower() in GOOD_NAMES]
        if len(good) != 1:
            raise InputError(f"{folder}: a dataset with test images, but without train/good; name the folder to fit on")
        return list_images(good)
    return list_images([folder])


def evenly(paths: list[Path], count: int) -> tuple[list[Path], list[Path]]:
    """At most `count` of the paths, evenly over their order, and the others."""
    if count >= len(paths):
        return paths, []
    drawn = {round(place * (len(paths) - 1) / max(count - 1, 1)) for place in range(count)}
    return [p for n, p in enumerate(paths) if n in drawn], [p for n, p in enumerate(paths) if n not in drawn]


def defect_images(folder: Path, good: list[Path]) -> list[Path]:
    """Images of defects to find a threshold by. good: those that are fitted on.

    Raises InputError when there are none, when one is among the good ones, and for a folder that holds good ones too.
    """
    found = list_images([folder])
    if both := {path.resolve() for path in found} & {path.resolve() for path in good}:
        raise InputError(f"{min(both)}: among the defects and among the good images; keep them in folders of their own")
    for path in found:
        if GOOD_NAMES & {part.lower() for part in path.relative_to(folder).parts[:-1]}:
            raise InputError(f"{folder}: holds good images too ({path}); name the folder of defects")
    return found


def _masks(image: Path, kind: Path, truths: list[Path]) -> tuple[Path, ...]:
    """Mask files of a defective image, none when it has none: NAME_mask.*, NAME.*, or the folder NAME."""
    for truth in truths:
        place = truth / image.relative_to(kind.parent).parent
        if (place / image.stem).is_dir():
            return tuple(list_images([place / image.stem]))
        for stem in (f"{image.stem}_mask", image.stem):
            for suffix in (image.suffix, *sorted(IMAGE_SUFFIXES)):
                if (place / (stem + suffix)).is_file():
                    return (place / (stem + suffix),)
    return ()


def _refuse_collection(folder: Path, children: list[Path]) -> None:
    """Say so when the folder holds several datasets instead of being one."""
    several = [c.name for c in children if (c / "Data").is_dir() or any((c / name).is_dir() for name in TEST_FOLDERS)]
    if several:
        raise InputError(
            f"{folder}: holds {len(several)} datasets; name one of them, for example {folder / several[0]}"
        )
