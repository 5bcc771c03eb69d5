"""`orinspect export` as a whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.drawn_defects import defect_changes
from orinspect_edge_runtime.errors import CheckFailed, InputError, OrinspectError
from orinspect_edge_runtime.golden import Replay, read_golden, replay
from orinspect_export import exporter
from orinspect_export.cli import export
from orinspect_export.decisions import Agreement

# Of random weights and 32 images no precision keeps the order of the scores as trained ones do.
LOOSE = ("--min-rank-correlation", 0.8, "--max-flips", 0.3)


def run_export(*arguments: object) -> Result:
    return CliRunner().invoke(export, [str(a) for a in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def bundle(resnet_run: Path, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("export") / "bundle"
    return out, run_export(resnet_run, "--out", out, "--calibration", image_folder, *LOOSE, "--json")


def test_a_bundle_comes_out(bundle: tuple[Path, Result]) -> None:
    out, result = bundle
    assert result.exception is None
    told = json.loads(result.stdout)
    opened = Bundle.open(out)
    assert opened.manifest.precisions == ("fp32", "fp16", "int8")
    assert len(opened.manifest.graphs) == len(told["graphs"]) == 6
    assert told["parity"] == json.loads(json.dumps(opened.manifest.parity))
    assert set(told["files"]) == set(opened.manifest.files)
    assert opened.manifest.encoder.name == "test_resnet"


def test_what_drawn_defects_change_is_in_it(bundle: tuple[Path, Result]) -> None:
    opened = Bundle.open(bundle[0])
    values = np.linalg.eigvalsh(defect_changes(opened))
    assert len(values) == opened.manifest.encoder.patch_dim
    assert values[-1] > 0 and values[0] > -1e-5 * values[-1]


def test_its_golden_outputs_are_reproduced(bundle: tuple[Path, Result]) -> None:
    opened = Bundle.open(bundle[0])
    golden = read_golden(opened)
    assert all(replay(opened, spec, golden).passed for spec in opened.manifest.graphs)


def test_parity_is_stored_with_its_conditions(bundle: tuple[Path, Result], image_folder: Path) -> None:
    parity = Bundle.open(bundle[0]).manifest.parity
    assert 0.97 < parity["int8"]["embedding_cosine_min"] < parity["fp16"]["embedding_cosine_min"] <= 1
    assert parity["int8"]["images"] > 0
    assert parity["reference"]["graph"] == "fp32"
    files = {path.name for path in image_folder.iterdir()}
    assert set(parity["calibration"]["images"]) < files


def test_the_page_tells_what_is_kept(bundle: tuple[Path, Result]) -> None:
    opened = Bundle.open(bundle[0])
    page = opened.read("precisions.html").decode()
    for layer in opened.manifest.parity["int8"]["kept"]:
        assert layer in page
    assert page.count("<svg") == 2
    assert "not yet run on hardware" in page


def test_a_precision_that_decides_otherwise_is_left_out(
    resnet_run: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Agreement, "within", lambda *_: False)
    arguments = (resnet_run, "--out", tmp_path / "b", "--calibration", image_folder, "--precision")
    result = run_export(*arguments, "fp32,int8")
    assert Bundle.open(tmp_path / "b").manifest.precisions == ("fp32",)
    assert "left out: int8 does not decide as fp32 does" in result.stderr
    alone = run_export(*arguments, "int8", "--force")
    assert isinstance(alone.exception, CheckFailed)
    assert Bundle.open(tmp_path / "b").manifest.precisions == ("fp32",)


def test_the_budget_is_held_on_labelled_images(
    resnet_run: Path, image_folder: Path, frames: Any, tmp_path: Path
) -> None:
    for index, pixels in enumerate(frames):
        kind = "good" if index % 2 else "inverted"
        (tmp_path / "labelled" / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels if index % 2 else 255 - pixels).save(tmp_path / "labelled" / kind / f"{index}.png")
    labelled = ("--labelled", tmp_path / "labelled", "--max-auroc-drop", 5)
    result = run_export(resnet_run, "--out", tmp_path / "b", "--calibration", image_folder, *labelled)
    assert result.exception is None
    parity = Bundle.open(tmp_path / "b").manifest.parity
    assert 0 <= parity["int8"]["auroc"] <= 1
    assert parity["int8"]["auroc_drop"] <= 5
    assert parity["int8"]["scored_images"] == len(frames)


def test_one_precision_and_the_table(resnet_run: Path, image_folder: Path, tmp_path: Path) -> None:
    result = run_export(resnet_run, "--out", tmp_path / "b", "--calibration", image_folder, "--precision", "fp16")
    assert result.exception is None
    assert "2 graphs (fp16)" in result.stdout
    assert any(line.startswith("fp16 ") for line in result.stdout.splitlines())
    assert Bundle.open(tmp_path / "b").manifest.precisions == ("fp16",)


def test_an_existing_bundle_needs_force(
    bundle: tuple[Path, Result], resnet_run: Path, image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(bundle[0], out)
    before = (out / "manifest.json").read_bytes()
    arguments = (resnet_run, "--out", out, "--calibration", image_folder, "--precision", "fp32")
    refused = run_export(*arguments)
    assert isinstance(refused.exception, InputError)
    assert "--force" in str(refused.exception)
    assert (out / "manifest.json").read_bytes() == before
    assert run_export(*arguments, "--force").exception is None
    assert Bundle.open(out).manifest.precisions == ("fp32",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--precision": "fp8"}, "fp32, fp16, int8"),
        ({"--precision": ","}, "fp32, fp16, int8"),
        ({"--calibration": "/nowhere"}, "no such file or folder"),
        ({"run": "/nowhere"}, "no such run"),
    ],
)
def test_wrong_usage_is_one_line(
    change: dict[str, str], message: str, resnet_run: Path, image_folder: Path, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"--calibration": image_folder, "--precision": "fp32"} | change
    options = [part for name, value in values.items() if name != "run" for part in (name, value)]
    result = run_export(change.get("run", resnet_run), "--out", tmp_path / "b", *options)
    assert isinstance(result.exception, OrinspectError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_a_graph_that_misses_golden_is_not_published(
    resnet_run: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "replay", lambda *_: Replay("fp32", "padim", 0.5, 0.1, False))
    result = run_export(resnet_run, "--out", tmp_path / "b", "--calibration", image_folder, "--precision", "fp32")
    assert isinstance(result.exception, CheckFailed)
    assert "does not reproduce" in str(result.exception)
    assert not list(tmp_path.iterdir())
