"""A run with a student: one more head, lowered by itself, and nothing else of the bundle differs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import BundleError, InputError
from orinspect_edge_runtime.golden import read_golden, replay
from orinspect_edge_runtime.learnt import FILE, fingerprint, learnt_images
from orinspect_export.cli import export
from orinspect_export.compiler import compile_report, compiler_installed
from orinspect_export.decisions import Agreement
from orinspect_export.graph import EncoderGraph, export_encoder, export_student
from orinspect_train.run_folder import CONFIG
from orinspect_train.student import load_student
from orinspect_train.student_training import teach

PRECISIONS = ("fp32", "fp16", "int8")
# Of random weights and 32 images no precision keeps the order of the scores as trained ones do.
LOOSE = ("--min-rank-correlation", 0.8, "--max-flips", 0.3)


def run_export(*arguments: object) -> Result:
    return CliRunner().invoke(export, [str(a) for a in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def taught(resnet_run: Path, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("taught")
    shutil.copytree(resnet_run, run / "before")
    (run / "before" / CONFIG).touch()
    teach(run / "before", image_folder, run / "after", steps=60)
    return run / "after"


@pytest.fixture(scope="module")
def bundles(
    taught: Path, resnet_run: Path, image_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, Bundle]:
    """Without a student, and with one."""
    folder = tmp_path_factory.mktemp("bundles")
    for name, run in (("plain", resnet_run), ("student", taught)):
        done = run_export(run, "--out", folder / name, "--calibration", image_folder, *LOOSE)
        assert done.exception is None, done.exception
    return Bundle.open(folder / "plain"), Bundle.open(folder / "student")


@pytest.mark.parametrize("batch", [1, 3])
def test_the_graph_gives_the_residuals_that_torch_gives(
    batch: int, taught: Path, resnet: EncoderGraph, frames: Any, run_graph: Callable[..., Any]
) -> None:
    graph = export_student(taught, resnet)
    assert graph is not None
    studied, record = load_student(taught)
    pixels = torch.from_numpy(frames[:batch]).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(record[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        embedding, residuals = studied((pixels - mean) / std)
    outputs = run_graph(graph.encoder.model, frames=frames[:batch])
    np.testing.assert_allclose(outputs["embedding"], embedding.numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(outputs["patches"], residuals.numpy(), rtol=1e-3, atol=1e-3)
    plain = run_graph(resnet.model, frames=frames[:batch])
    assert not np.allclose(outputs["patches"], plain["patches"], atol=0.1)


def test_a_bundle_has_one_more_head_and_is_the_same_otherwise(bundles: tuple[Bundle, Bundle]) -> None:
    plain, student = (bundle.manifest for bundle in bundles)
    more = {(g.precision, g.head) for g in student.graphs} - {(g.precision, g.head) for g in plain.graphs}
    assert more == {(precision, "student") for precision in PRECISIONS}
    same = [graph.file for graph in plain.graphs]
    assert [plain.files[name] for name in same] == [student.files[name] for name in same]
    assert plain.format_version == student.format_version
    assert FILE not in plain.files
    assert {f"student {precision}" for precision in PRECISIONS[1:]} <= set(student.parity)
    page = bundles[1].read("precisions.html").decode()
    assert "student fp16" in page and "student int8" in page


def test_golden_is_reproduced_and_notices_another_student(bundles: tuple[Bundle, Bundle]) -> None:
    bundle = bundles[1]
    golden = read_golden(bundle)
    assert all(replay(bundle, spec, golden).passed for spec in bundle.manifest.graphs)
    assert {"score_student", "student.patch_means", "embedding_student_int8"} <= set(golden)
    plain = read_golden(bundles[0])
    assert all(np.array_equal(golden[name], plain[name]) for name in plain)
    scores = golden["score_student"]
    wrong = golden | {"score_student": scores[::-1].copy()}
    assert not replay(bundle, bundle.manifest.graph("fp32", "student"), wrong).passed


def test_the_bundle_knows_what_it_has_learnt(bundles: tuple[Bundle, Bundle], frames: Any) -> None:
    assert learnt_images(bundles[0]) == frozenset()
    learnt = learnt_images(bundles[1])
    assert len(learnt) == 26
    assert learnt < {fingerprint(frame) for frame in frames}


def test_a_student_that_decides_otherwise_in_a_precision_is_left_out_of_it(
    taught: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = iter([True, *[False] * 10_000])
    monkeypatch.setattr(Agreement, "within", lambda *_: next(judged))
    result = run_export(
        taught, "--out", tmp_path / "b", "--calibration", image_folder, "--precision", "fp32,fp16", *LOOSE
    )
    heads = {(g.precision, g.head) for g in Bundle.open(tmp_path / "b").manifest.graphs}
    assert ("fp32", "student") in heads and ("fp16", "padim") in heads and ("fp16", "student") not in heads
    assert "left out: the student's fp16 does not decide as fp32 does" in result.stderr
    assert not list(tmp_path.glob(".b.*"))


@pytest.mark.parametrize("looks", [{"turns": True}, {"second_scale": 1.5}])
def test_a_student_looks_once(looks: dict[str, Any], taught: Path) -> None:
    with pytest.raises(InputError, match="goes with neither --turns nor --second-scale"):
        export_student(taught, export_encoder(taught, **looks))


@pytest.mark.skipif(not compiler_installed(), reason="tensorrt-rtx is not installed")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_compiler_takes_it(precision: str, bundles: tuple[Bundle, Bundle]) -> None:
    bundle = bundles[1]
    report = compile_report(bundle.read(bundle.manifest.graph(precision, "student").file))
    assert report.built and report.errors == ()


def test_a_bundle_without_a_student_says_how_to_get_one(bundles: tuple[Bundle, Bundle]) -> None:
    with pytest.raises(BundleError, match="train one with  orinspect student RUN IMAGES"):
        bundles[0].manifest.graph("fp32", "student")


def test_the_student_costs_few_operators(taught: Path, resnet: EncoderGraph) -> None:
    graph = export_student(taught, resnet)
    assert graph is not None
    convolutions = [sum(n.op_type == "Conv" for n in model.graph.node) for model in (resnet.model, graph.encoder.model)]
    assert convolutions[1] - convolutions[0] == 4
    onnx.checker.check_model(graph.encoder.model, full_check=True)
