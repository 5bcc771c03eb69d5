"""The everyday commands, as a user types them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def bundle(real_bundle: Path, tmp_path: Path, pictures: Path, orinspect: Callable[..., Any]) -> Path:
    shutil.copytree(real_bundle, tmp_path / "bundle")
    fitted = orinspect("fit", tmp_path / "bundle", pictures / "train", "--recipe", "part", "--false-alarm", "0.1")
    assert fitted.code == 0, fitted.err
    return tmp_path / "bundle"


def test_the_everyday_round(bundle: Path, tmp_path: Path, pictures: Path, orinspect: Callable[..., Any]) -> None:
    reflection = tmp_path / "reflection.png"
    pixels = np.array(Image.open(pictures / "train/good/00.png"))
    pixels[10:20, 12:24] = 170
    Image.fromarray(pixels).save(reflection)

    def is_alarm() -> bool:
        return bool(json.loads(orinspect("score", bundle, reflection, "--json").out)[0]["is_anomalous"])

    assert is_alarm()
    added = orinspect("recipe", "add", bundle, reflection, "--note", "glare")
    assert added.code == 0 and "(glare): " in added.out and "rows entered" in added.out
    assert not is_alarm()
    undone = json.loads(orinspect("recipe", "undo", bundle, "--json").out)
    assert (undone["kind"], undone["number"]) == ("undo", 2)
    assert is_alarm()
    forgotten = orinspect("recipe", "forget", bundle, "03.png", "--recipe", "part")
    assert forgotten.code == 0 and "threshold" in forgotten.out
    log = json.loads(orinspect("recipe", "history", bundle, "--json").out)
    assert [edit["kind"] for edit in log] == ["add", "undo", "forget"]
    images = orinspect("recipe", "history", bundle, "--images").out.splitlines()
    assert len(images) == 23 and not any(name.endswith("/03.png") for name in images)
    assert len(orinspect("recipe", "history", bundle).out.splitlines()) == 4

    assert orinspect("recipe", "copy", bundle, "part", "trial").code == 0
    rows = json.loads(orinspect("recipe", "list", bundle, "--json").out)
    assert [(row["name"], row["good_images"], row["edits"]) for row in rows] == [("part", 23, 1), ("trial", 23, 1)]
    assert "part: patchcore fp32, 23 good images" in orinspect("recipe", "list", bundle).out
    assert orinspect("recipe", "remove", bundle, "trial").code == 0
    assert orinspect("recipe", "remove", bundle, "part").code == 0
    assert "has no recipes" in orinspect("recipe", "list", bundle).out
    assert orinspect("check", bundle).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "BUNDLE", "nowhere.png"), "no such file or folder"),
        (("forget", "BUNDLE", "nowhere.png"), "holds no such image"),
        (("forget", "BUNDLE", "nowhere.png", "--recipe", "x"), "has no recipe 'x' (it has: part)"),
        (("undo", "BUNDLE"), "no edit to undo"),
        (("remove", "BUNDLE", "x"), "has no recipe 'x'"),
        (("copy", "BUNDLE", "part", "part"), "already"),
        (("copy", "BUNDLE", "part", "a/b"), "recipe name"),
        (("add", "BUNDLE", "PICTURE", "--note", "x" * 501), "at most 500"),
        (("list", "nowhere"), "no such bundle"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_changes_nothing(
    bundle: Path, pictures: Path, orinspect: Callable[..., Any], arguments: tuple[str, ...], message: str
) -> None:
    before = (bundle / "manifest.json").read_bytes()
    places = {"BUNDLE": bundle, "PICTURE": pictures / "test/good/00.png"}
    ran = orinspect("recipe", *(places.get(argument, argument) for argument in arguments))
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err and len(ran.err.splitlines()) == 1
    assert (bundle / "manifest.json").read_bytes() == before
