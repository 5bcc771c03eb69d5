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


def test_a_threshold_by_defects(bundle: Path, pictures: Path, orinspect: Callable[..., Any]) -> None:
    blots, train = pictures / "test/blot", pictures / "train"
    fitted = orinspect("fit", bundle, train, "--recipe", "few", "--defects", blots)
    assert fitted.code == 0, fitted.err
    assert "best F1 on 24 good images and 5 defects" in fitted.out and "no promise" in fitted.out
    costs = ("--cost-missed", "200", "--defect-rate", "0.01")
    shown = json.loads(orinspect("fit", bundle, train, "--recipe", "few", "--defects", blots, *costs, "--json").out)
    assert shown["threshold_rule"] == "cost" and shown["expected"]["missed"] == 0
    assert shown["stakes"] == {"cost_missed": 200, "cost_false_alarm": 1, "defect_rate": 0.01}
    assert [Path(name).name for name in shown["defects"]] == [f"{n:02d}.png" for n in range(5)]
    assert min(shown["defects"].values()) > shown["threshold"]

    moved = orinspect("recipe", "threshold", bundle, "--recipe", "part", "--defects", blots, "--note", "samples")
    assert moved.code == 0 and "threshold  (samples): threshold " in moved.out and "best F1 on 24" in moved.out
    rows = {row["name"]: row for row in json.loads(orinspect("recipe", "list", bundle, "--json").out)}
    assert (rows["part"]["defects"], rows["part"]["defects_found"], rows["part"]["threshold_rule"]) == (5, 5, "f1")
    assert "5 of 5 defects alarm, 1 edits" in orinspect("recipe", "list", bundle).out
    cheaper = json.loads(orinspect("recipe", "threshold", bundle, "--recipe", "part", *costs, "--json").out)
    assert cheaper["kind"] == "threshold" and cheaper["threshold_after"] < cheaper["threshold_before"]
    rate = orinspect("recipe", "threshold", bundle, "--recipe", "part", "--false-alarm", "0.2")
    assert rate.code == 0 and "at most 20.00% false alarms" in rate.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--defects test/blot --false-alarm 0.1", "--false-alarm and --defects both say where the threshold lies"),
        ("--defects test/blot --threshold tail", "--threshold and --defects both say"),
        ("--cost-missed 5", "weigh defects: give --defects FOLDER"),
        ("--defects test/blot --cost-missed 5", "--cost-missed needs --defect-rate"),
        ("--defects test/blot --cost-missed 0 --defect-rate 0.1", "a cost above 0"),
        ("--defects test", "holds good images too"),
        ("--defects train/good", "among the defects and among the good images"),
        ("--defects test/none", "no such file or folder"),
    ],
)
def test_defects_that_cannot_be_weighed(
    options: str,
    message: str,
    bundle: Path,
    pictures: Path,
    orinspect: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(pictures)
    before = (bundle / "manifest.json").read_bytes()
    ran = orinspect("fit", bundle, "train", *options.split())
    assert ran.code == 2 and message in ran.err and len(ran.err.splitlines()) == 1
    assert (bundle / "manifest.json").read_bytes() == before


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


@pytest.mark.parametrize(
    ("options", "told", "runs"),
    [
        (("--neighbours", "3", "--projection", "none"), "neighbours 3, projection none", "rows searched one by one"),
        (("--reweight", "9"), "reweight 9", "rows searched in cells"),
        (("--components", "2"), "components 2", ""),
    ],
)
def test_the_options_of_a_bank_all_the_way(
    bundle: Path, pictures: Path, orinspect: Callable[..., Any], options: tuple[str, ...], told: str, runs: str
) -> None:
    fitted = orinspect("fit", bundle, pictures / "train", "--recipe", "part", "--false-alarm", "0.1", *options)
    assert fitted.code == 0, fitted.err
    assert f"distances: {told}\n" in fitted.out
    assert f"part: patchcore ({told}) fp32" in orinspect("recipe", "list", bundle).out
    assert json.loads(orinspect("recipe", "list", bundle, "--json").out)[0]["distances"] == told
    asked = dict(zip((name.removeprefix("--") for name in options[::2]), options[1::2], strict=True))
    shown = json.loads(orinspect("fit", bundle, pictures / "train", "--recipe", "part", "--json", *options).out)
    assert {name: str(shown[name]) for name in asked} == asked
    judged = json.loads(orinspect("evaluate", bundle, pictures, "--json").out)
    assert judged["auroc"] > 0.9
    explained = orinspect("score", bundle, pictures / "test/blot", "--explain")
    assert explained.code == 0 and "nearest good: " in explained.out
    measured = json.loads(orinspect("bench", bundle, "--recipe", "part", "--runs", "10", "--json").out)
    assert runs in measured["latencies"][0]["runs_on"] and measured["bank_rows"] > 10
    assert ("searched" in measured["latencies"][0]["runs_on"]) == bool(runs)
    assert orinspect("check", bundle).code == 0
    assert orinspect("recipe", "add", bundle, pictures / "test/good/00.png").code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--scorer", "knn", "--neighbours", "3"),
            "--neighbours is of the memory bank of the scorer patchcore: knn has",
        ),
        (("--scorer", "padim", "--distance", "cosine"), "--distance is of the memory bank of the scorer patchcore"),
        (("--scorer", "student", "--components", "3"), "--components is of the memory bank"),
        (("--neighbours", "3", "--reweight", "9"), "leave --neighbours away"),
        (("--reweight", "1"), "--reweight 1: 2 rows or more, 9 are usual; 0 for none"),
        (("--reweight", "9", "--tiles", "2x2"), "leave one away"),
        (("--distance", "manhattan"), "--distance manhattan is not known: use one of l2, cosine"),
        (("--projection", "random"), "--projection random is not known: use one of whitened, none"),
        (("--components", "4"), "--components 4: 1 to 3 for this encoder"),
        (("--neighbours", "0"), "0 is not in the range"),
    ],
)
def test_options_of_a_bank_that_cannot_be(
    bundle: Path, pictures: Path, orinspect: Callable[..., Any], options: tuple[str, ...], message: str
) -> None:
    before = (bundle / "manifest.json").read_bytes()
    refused = orinspect("fit", bundle, pictures / "train", "--recipe", "part", *options)
    assert refused.code == 2 and message in refused.err and refused.err.splitlines()[-1].startswith("orinspect: ")
    assert (bundle / "manifest.json").read_bytes() == before
