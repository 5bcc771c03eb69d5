"""Labelled folders: the layouts that are taken, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from orinspect_edge_runtime.dataset import read_dataset, training_images
from orinspect_edge_runtime.errors import InputError


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.new("L", (8, 8)).save(path)
        elif name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.write_text("text")
    return root


def read(root: Path) -> list[tuple[str, str, bool]]:
    return [(str(i.path.relative_to(root)), i.kind, i.is_defective) for i in read_dataset(root)]


def test_mvtec_layout(tmp_path: Path) -> None:
    tree(tmp_path, "train/good/0.png", "ground_truth/scratch/0_mask.png", "license.txt")
    tree(tmp_path, "test/scratch/0.png", "test/good/1.png", "test/good/0.png", "test/bent/0.png")
    assert read(tmp_path) == [
        ("test/good/0.png", "good", False),
        ("test/good/1.png", "good", False),
        ("test/bent/0.png", "bent", True),
        ("test/scratch/0.png", "scratch", True),
    ]


@pytest.mark.parametrize("good", ["good", "OK", "Normal"])
def test_flat_layout(tmp_path: Path, good: str) -> None:
    tree(tmp_path, f"{good}/0.png", "zz/deep/er/0.png", "train/x.png", "ground_truth/x.png", ".cache/x.png", "x.png")
    assert read(tmp_path) == [(f"{good}/0.png", good, False), ("zz/deep/er/0.png", "zz", True)]


def test_only_whole_names_mean_good(tmp_path: Path) -> None:
    tree(tmp_path, "good/0.png", "not good/0.png", "goodness/0.png")
    assert [defective for _, _, defective in read(tmp_path)] == [False, True, True]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "needs one folder named good"),
        (["0.png"], "needs one folder named good"),
        (["good/0.png"], "at least one folder of defective images"),
        (["scratch/0.png"], "needs one folder named good"),
        (["good/0.png", "ok/0.png", "bad/0.png"], "needs one folder named good"),
        (["good/0.png", "train/good/0.png"], "at least one folder of defective images"),
        (["train/good/0.png", "ground_truth/x/0.png"], "needs one folder named good"),
        (["test/good/0.png", "bad/0.png"], "test: needs one folder named good and at least one folder of defective"),
        (["good/notes.txt", "bad/0.png"], "good: no images here"),
        (["good/0.png", "bad/"], "bad: no images here"),
        (["good", "bad/0.png"], "needs one folder named good"),
    ],
)
def test_other_layouts_are_explained_in_one_line(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(tree(tmp_path, *names))
    assert str(tmp_path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["missing", "file.png", "x" * 300])
def test_what_is_no_folder(tmp_path: Path, name: str) -> None:
    tree(tmp_path, "file.png")
    with pytest.raises(InputError, match="no folder that can be read"):
        read_dataset(tmp_path / name)


def masks(root: Path) -> dict[str, list[str]]:
    return {
        str(image.path.relative_to(root)): [str(mask.relative_to(root)) for mask in image.masks]
        for image in read_dataset(root)
        if image.is_defective
    }


def test_masks_of_mvtec_ad(tmp_path: Path) -> None:
    tree(tmp_path, "train/good/0.png", "test/good/0.png", "test/cut/0.png", "test/cut/1.png", "test/bent/0.png")
    tree(tmp_path, "ground_truth/cut/0_mask.png", "ground_truth/bent/0_mask.png")
    assert masks(tmp_path) == {
        "test/bent/0.png": ["ground_truth/bent/0_mask.png"],
        "test/cut/0.png": ["ground_truth/cut/0_mask.png"],
        "test/cut/1.png": [],
    }
    assert training_images(tmp_path) == [tmp_path / "train/good/0.png"]


def test_masks_of_mvtec_loco_are_folders(tmp_path: Path) -> None:
    tree(tmp_path, "train/good/0.png", "validation/good/1.png", "test/good/0.png", "test/logical_anomalies/0.png")
    tree(tmp_path, "test/structural_anomalies/0.png", "ground_truth/structural_anomalies/0/000.png")
    tree(tmp_path, "ground_truth/logical_anomalies/0/000.png", "ground_truth/logical_anomalies/0/001.png")
    assert masks(tmp_path) == {
        "test/logical_anomalies/0.png": [f"ground_truth/logical_anomalies/0/00{n}.png" for n in (0, 1)],
        "test/structural_anomalies/0.png": ["ground_truth/structural_anomalies/0/000.png"],
    }
    assert training_images(tmp_path) == [tmp_path / "train/good/0.png"]


def test_mvtec_ad_2_is_read_from_its_public_test(tmp_path: Path) -> None:
    tree(tmp_path, "train/good/0_regular.png", "validation/good/1_regular.png", "test_private/2.png")
    tree(tmp_path, "test_public/good/3.png", "test_public/bad/4.png", "test_public/ground_truth/bad/4_mask.png")
    assert read(tmp_path) == [("test_public/good/3.png", "good", False), ("test_public/bad/4.png", "bad", True)]
    assert masks(tmp_path) == {"test_public/bad/4.png": ["test_public/ground_truth/bad/4_mask.png"]}
    assert training_images(tmp_path) == [tmp_path / "train/good/0_regular.png"]


def test_masks_of_plain_folders(tmp_path: Path) -> None:
    tree(tmp_path, "good/0.png", "bad/0.png", "bad/deep/1.png", "ground_truth/bad/0.bmp.txt")
    tree(tmp_path, "ground_truth/bad/0.png", "ground_truth/bad/deep/1_mask.png")
    assert masks(tmp_path) == {
        "bad/0.png": ["ground_truth/bad/0.png"],
        "bad/deep/1.png": ["ground_truth/bad/deep/1_mask.png"],
    }


def test_a_folder_of_datasets_names_one(tmp_path: Path) -> None:
    tree(tmp_path, "bottle/test/good/0.png", "cable/test/good/0.png", "candle/Data/Images/Normal/0.png")
    with pytest.raises(InputError, match=r"holds 3 datasets; name one of them, for example .*bottle"):
        read_dataset(tmp_path)


def test_defects_of_a_dataset_are_never_fitted_on(tmp_path: Path) -> None:
    tree(tmp_path, "test/good/0.png", "test/bad/0.png")
    with pytest.raises(InputError, match="without train/good"):
        training_images(tmp_path)
    plain = tree(tmp_path / "plain", "b/1.png", "0.png")
    assert training_images(plain) == [plain / "0.png", plain / "b/1.png"]
