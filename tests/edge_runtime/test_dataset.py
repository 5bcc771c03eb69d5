"""Labelled folders: the layouts that are taken, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from orinspect_edge_runtime.dataset import read_dataset
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
