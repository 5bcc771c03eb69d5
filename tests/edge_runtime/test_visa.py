"""VisA as its archive unpacks: the split's table decides, image_anno.csv names the kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from orinspect_edge_runtime.dataset import read_dataset, training_images
from orinspect_edge_runtime.errors import InputError

HEAD = "object,split,label,image,mask"
NORMAL, ANOMALY = "candle/Data/Images/Normal", "candle/Data/Images/Anomaly"
ROWS = (
    f"candle,train,normal,{NORMAL}/0000.JPG,",
    f"candle,test,anomaly,{ANOMALY}/000.JPG,candle/Data/Masks/Anomaly/000.png",
    f"candle,test,normal,{NORMAL}/0001.JPG,",
    f"pcb1,test,normal,{NORMAL}/0000.JPG,",
)
KINDS = (
    f'image,label,mask\n{NORMAL}/0000.JPG,normal,\n{ANOMALY}/000.JPG,"chip,stain",candle/Data/Masks/Anomaly/000.png\n'
)


def visa(root: Path, rows: tuple[str, ...] = ROWS, head: str = HEAD) -> Path:
    names = (f"{NORMAL}/0000.JPG", f"{NORMAL}/0001.JPG", f"{ANOMALY}/000.JPG", "candle/Data/Masks/Anomaly/000.png")
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(root / name)
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join([head, *rows]) + "\n")
    (root / "candle/image_anno.csv").write_text(KINDS)
    return root / "candle"


def test_the_table_decides_what_is_a_test(tmp_path: Path) -> None:
    category = visa(tmp_path)
    images = read_dataset(category)
    assert [(i.path.name, i.kind, i.is_defective) for i in images] == [
        ("0001.JPG", "normal", False),
        ("000.JPG", "chip,stain", True),
    ]
    assert [mask.relative_to(tmp_path) for mask in images[1].masks] == [Path("candle/Data/Masks/Anomaly/000.png")]
    assert training_images(category) == [tmp_path / NORMAL / "0000.JPG"]


def test_kinds_are_optional(tmp_path: Path) -> None:
    category = visa(tmp_path)
    (category / "image_anno.csv").unlink()
    assert [image.kind for image in read_dataset(category)] == ["normal", "anomaly"]


@pytest.mark.parametrize(
    ("rows", "head", "message"),
    [
        ((), HEAD, "needs the columns object, split"),
        (ROWS, "a,b,c,d,e", "needs the columns object, split"),
        (ROWS[:1], HEAD, "lists no test images of candle"),
        (ROWS[:2], HEAD, "lists no test images of candle, good and defective"),
        ((*ROWS, f"candle,test,normal,{NORMAL}/9.JPG,"), HEAD, "9.JPG: listed in split_csv/1cls.csv, but missing"),
    ],
)
def test_damaged_archives_are_told_in_one_line(tmp_path: Path, rows: tuple[str, ...], head: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(visa(tmp_path, rows, head))
    assert len(str(caught.value).splitlines()) == 1


def test_without_its_table_nothing_tells_training_from_test(tmp_path: Path) -> None:
    category = visa(tmp_path)
    (tmp_path / "split_csv/1cls.csv").unlink()
    with pytest.raises(InputError, match="unpack the whole archive"):
        read_dataset(category)
