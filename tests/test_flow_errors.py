"""What goes wrong between the commands: always one line that says so, the right exit code, and nothing half-written."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from shutil import copy, copytree
from typing import Any

import numpy as np
import pytest

from orinspect_edge_runtime.bundle import GOLDEN, MANIFEST, Bundle

Run = Callable[..., Any]
GRAPH = "graphs/patchcore-fp32.onnx"


def told(ran: Any, code: int, message: str) -> None:
    """The command ended with `code` and one line that matches `message`."""
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    lines = [line for line in ran.err.splitlines() if line.startswith("orinspect: ")]
    assert len(lines) == 1
    assert re.search(message, lines[0]), lines[0]


def state(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def place(tmp_path: Path, real_bundle: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: `bundle` without a recipe, `data` in the MVTec layout, and a choice of bad things."""
    copytree(real_bundle, tmp_path / "bundle")
    copytree(pictures, tmp_path / "data")
    for name in ("empty", "one", "texts", "one-kind/good"):
        (tmp_path / name).mkdir(parents=True)
    copy(pictures / "train/good/00.png", tmp_path / "one")
    for number in range(3):
        copy(pictures / f"train/good/0{number}.png", tmp_path / "one-kind/good")
        (tmp_path / f"texts/{number}.png").write_text("text")
    (tmp_path / "file").write_text("text")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fitted(place: Path, orinspect: Run) -> Path:
    assert orinspect("fit", "bundle", "data/train/good").code == 0
    return place


FIT = ["fit", "bundle", "data/train/good"]
BAD_INPUT = [
    (["fit", "nowhere", "data"], "nowhere: no such bundle; make one with orinspect export"),
    (["fit", "file", "data"], "file: not a bundle"),
    (["fit", "data", "data"], "data: not a bundle"),
    (["fit", "bundle", "nowhere"], "nowhere: no such file or folder"),
    (["fit", "bundle", "empty"], "empty: no images here"),
    (["fit", "bundle", "one"], "1 good image: how good parts differ cannot be seen from that; at least 2"),
    (["fit", "bundle", "texts"], "1 of 3 images cannot be used.*texts/0.png"),
    (["fit", "bundle", "file"], "1 of 1 images cannot be used.*file: not an image"),
    ([*FIT, "--scorer", "magic"], "scorer 'magic' is not known: use one of .*patchcore"),
    ([*FIT, "--scorer", "padim"], "no fp32 graph with the head 'padim'"),
    ([*FIT, "--precision", "int8"], r"no int8 graph .*it has: fp32 patchcore"),
    ([*FIT, "--false-alarm", "0"], "--false-alarm 0.0: a share between"),
    ([*FIT, "--false-alarm", "nan"], "--false-alarm nan: a share between"),
    ([*FIT, "--recipe", "../x"], "recipe name '../x'"),
    ([*FIT, "--recipe", ""], "recipe name ''"),
    ([*FIT, "--groups", "-1"], "groups"),
    ([*FIT, "--groups", "1000"], "groups"),
    ([*FIT, "--rank", "4"], "--rank is of the covariances of padim and padim_mahalanobis: patchcore has none by place"),
    ([*FIT, "--rank", "0"], "rank"),
    ([*FIT, "--likelihood-ratio"], "--likelihood-ratio is of padim and padim_mahalanobis, not of patchcore"),
    (["score", "bundle", "data"], "bundle has 0 recipes: run orinspect fit first"),
    (["score", "bundle", "data", "--recipe", "x"], "no recipe 'x'"),
    (["evaluate", "bundle", "data"], "bundle has 0 recipes"),
    (["evaluate", "bundle", "nowhere"], "nowhere: no folder"),
    (["evaluate", "bundle", "empty"], "empty: needs one folder named good"),
    (["evaluate", "bundle", "one-kind"], "at least one folder of defective images"),
    (["embed", "bundle", "data", "--out", "x.csv"], "x.csv: embeddings are written as .npz or .parquet"),
    (["embed", "bundle", "data", "--out", "file/x.npz"], "cannot write file/"),
    (["embed", "bundle", "data", "--out", "x.npz", "--precision", "fp16"], "no fp16 graph"),
    (["embed", "bundle", "texts", "--out", "x.npz"], "texts/0.png"),
    (["check", "nowhere"], "nowhere: no such bundle"),
    (["check", "data"], "data: not a bundle"),
    (["bench", "bundle", "--runs", "9"], "--runs 9: at least 10"),
    (["bench", "bundle", "--scenario", "x"], "scenario 'x' is not known"),
    (["bench", "bundle", "--head", "x"], "no fp32 graph with the head 'x'"),
    (["bench", "bundle", "--precision", "fp32,x"], "no x graph"),
    (["bench", "bundle", "--recipe", "x"], "no recipe 'x'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT, ids=[" ".join(a) for a, _ in BAD_INPUT])
def test_bad_input_is_one_line_and_changes_nothing(
    place: Path, orinspect: Run, arguments: list[str], message: str
) -> None:
    before = state(place)
    told(orinspect(*arguments), 2, message)
    assert state(place) == before


@pytest.mark.parametrize("arguments", [[*FIT, "--seed", "-1"], ["bench", "bundle", "--runs", "10", "--threads", "-2"]])
def test_negative_numbers_are_refused(place: Path, orinspect: Run, arguments: list[str]) -> None:
    told(orinspect(*arguments), 2, arguments[-2])


def test_a_flipped_byte_anywhere_fails_the_check(fitted: Path, orinspect: Run) -> None:
    bundle = Bundle.open(fitted / "bundle")
    read_to_score = {bundle.manifest.recipes["default"], bundle.manifest.graph("fp32", "patchcore").file}
    for name, content in state(fitted / "bundle").items():
        place = len(content) // 2
        (fitted / "bundle" / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        told(orinspect("check", "bundle"), 1, f"{name}: .*copy the bundle again")
        scored = orinspect("score", "bundle", "data/test")
        if name in read_to_score:
            told(scored, 2, f"{name}: .*copy the bundle again")
        else:
            # It takes no part in a verdict; to hash it at every start would cost more than the start itself.
            assert scored.code == (2 if name == MANIFEST else 0), name
        (fitted / "bundle" / name).write_bytes(content)
    assert orinspect("check", "bundle").code == 0


def rewrite(bundle: Path, make_bundle: Callable[..., Bundle], name: str, content: bytes) -> None:
    """Replace a file of a bundle and list it rightly, so that only its content is wrong."""
    old = Bundle.open(bundle)
    contents = {listed: old.read(listed) for listed in old.manifest.files} | {name: content}
    make_bundle(bundle, contents, recipes=old.manifest.recipes)


def test_a_graph_that_does_not_reproduce_golden_fails_the_check(
    fitted: Path, orinspect: Run, make_bundle: Callable[..., Bundle]
) -> None:
    with np.load(fitted / "bundle" / GOLDEN) as entries:
        arrays = {name: entries[name] for name in entries.files}
    file = io.BytesIO()
    np.savez(file, **(arrays | {"score_patchcore": -arrays["score_patchcore"]}))
    rewrite(fitted / "bundle", make_bundle, GOLDEN, file.getvalue())
    ran = orinspect("check", "bundle")
    told(ran, 1, "fp32 patchcore does not reproduce golden; do not use it, export again")
    assert "FAILED fp32 patchcore" in ran.out


def test_a_recipe_fitted_through_another_graph_is_refused(
    fitted: Path, orinspect: Run, make_bundle: Callable[..., Bundle]
) -> None:
    # An unknown field at the end is legal in ONNX and changes the digest.
    graph = (fitted / "bundle" / GRAPH).read_bytes() + b"\x22\x04test"
    rewrite(fitted / "bundle", make_bundle, GRAPH, graph)
    told(orinspect("score", "bundle", "data/test"), 2, "'default' was fitted through another fp32 graph; fit it again")
    assert orinspect("fit", "bundle", "data/train/good").code == 0
    assert orinspect("score", "bundle", "data/test").code == 0


@pytest.mark.parametrize("content", [b"", b"text", b"\x08\x08"])
def test_a_graph_that_is_none_is_refused(
    place: Path, orinspect: Run, make_bundle: Callable[..., Bundle], content: bytes
) -> None:
    rewrite(place / "bundle", make_bundle, GRAPH, content)
    for arguments in (FIT, ["check", "bundle"], ["bench", "bundle"], ["embed", "bundle", "data", "--out", "x.npz"]):
        told(orinspect(*arguments), 2, f"{GRAPH}: onnxruntime refuses it")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\3\4"])
def test_golden_that_is_none_is_refused(
    place: Path, orinspect: Run, make_bundle: Callable[..., Bundle], content: bytes
) -> None:
    rewrite(place / "bundle", make_bundle, GOLDEN, content)
    told(orinspect("check", "bundle"), 2, GOLDEN)


def test_a_second_recipe_asks_which(fitted: Path, orinspect: Run) -> None:
    assert orinspect("fit", "bundle", "data/train/good", "--recipe", "other").code == 0
    told(orinspect("score", "bundle", "data/test"), 2, "2 recipes: name one of default, other with --recipe")
    assert orinspect("score", "bundle", "data/test", "--recipe", "other").code == 0


@pytest.mark.usefixtures("place")
def test_a_full_disk_stops_fit_and_keeps_the_old_recipe(orinspect: Run, small_disk: Path) -> None:
    bundle = copytree("bundle", small_disk / "bundle")
    assert orinspect("fit", bundle, "data/train/good").code == 0
    before, left = state(bundle), os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(left.f_bavail * left.f_frsize - 4096))
    told(orinspect("fit", bundle, "data/train/good", "--seed", "1"), 2, "No space left on device")
    assert state(bundle) == before
    assert orinspect("score", bundle, "data/test").code == 0
    ran = orinspect("evaluate", bundle, "data", "--report", small_disk / "report")
    told(ran, 2, "No space left on device; nothing was changed")
    # What is scored stays, for the next run to go on from.
    assert {path.name for path in (small_disk / "report").glob("*")} <= {"evaluation.json", ".evaluation.json.parts"}


def test_a_newer_bundle_asks_for_an_upgrade(place: Path, orinspect: Run) -> None:
    manifest = place / "bundle" / MANIFEST
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 2'))
    for arguments in (FIT, ["score", "bundle", "data"], ["bench", "bundle"]):
        told(orinspect(*arguments), 2, "format version 2, but this orinspect reads up to 1; run pip install --upgrade")
