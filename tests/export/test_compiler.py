"""NVIDIA's compiler takes every graph; when it does not, or dies, a sentence comes back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from orinspect_edge_runtime.errors import MissingExtra
from orinspect_edge_runtime.heads import HEADS
from orinspect_edge_runtime.preprocess import PreprocessSpec, fit_to_model
from orinspect_export import compiler
from orinspect_export.compiler import compile_report, compiler_installed, dimension_range
from orinspect_export.fp16 import to_fp16, to_fp16_beside_int8
from orinspect_export.graph import EncoderGraph, export_encoder
from orinspect_export.head_graph import attach_head
from orinspect_export.int8 import Quantiser
from orinspect_export.qdq import weighted_layers

needs_compiler = pytest.mark.skipif(not compiler_installed(), reason="tensorrt-rtx is not installed")


@pytest.fixture(scope="module")
def precisions(lite0: EncoderGraph, lite0_int8: Any) -> dict[str, Any]:
    return {"fp32": lite0.model, "fp16": to_fp16(lite0.model), "int8": lite0_int8}


@needs_compiler
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_graph_builds(head: str, precision: str, precisions: dict[str, Any], lite0: EncoderGraph) -> None:
    fused = attach_head(precisions[precision], head, lite0.spec, lite0.preprocess)
    report = compile_report(fused.SerializeToString())
    assert report.errors == ()
    assert report.built
    assert report.layers > 100
    assert report.megabytes > 1


CONVERSIONS: dict[str, Callable[..., Any]] = {
    "fp32": lambda graph, frames: graph.model,
    "fp16": lambda graph, frames: to_fp16(graph.model),
    "int8": lambda graph, frames: Quantiser(graph.model, frames).build(),
    "int8 and fp16": lambda graph, frames: to_fp16_beside_int8(
        Quantiser(graph.model, frames).build(every_third(graph))
    ),
}


def every_third(graph: EncoderGraph) -> list[str]:
    return weighted_layers(graph.model)[::3]


@needs_compiler
@pytest.mark.parametrize(
    "family", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050", "test_convnext", "test_vit"]
)
@pytest.mark.parametrize("precision", CONVERSIONS)
def test_every_family_of_encoders_builds(
    precision: str, family: str, make_run: Callable[..., Path], frames: Any
) -> None:
    """With one head each, to save time; `benchmarks/compiler.py` builds the large ones with both."""
    graph = export_encoder(make_run(family))
    head = "padim" if precision == "fp16" else "patchcore"
    fused = attach_head(CONVERSIONS[precision](graph, frames[:4]), head, graph.spec, graph.preprocess)
    report = compile_report(fused.SerializeToString())
    assert report.errors == ()
    kept = every_third(graph) if precision == "int8 and fp16" else []
    expected = len(weighted_layers(graph.model)) - len(kept) if "int8" in precision else 0
    assert report.int8_layers == expected, "of the layers with weights, as NVIDIA's parser sees them"


@needs_compiler
@pytest.mark.parametrize(
    ("family", "looks", "side"),
    [
        ("test_resnet", {"turns": True}, 64),
        ("test_vit", {"turns": True}, 64),
        ("test_resnet", {"second_scale": 1.5}, 96),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "int8 and fp16"])
def test_a_graph_that_looks_more_than_once_builds(
    precision: str, family: str, looks: dict[str, Any], side: int, make_run: Callable[..., Path], frames: Any
) -> None:
    graph = export_encoder(make_run(family), **looks)
    seen = np.stack([fit_to_model(frame, PreprocessSpec(side, side)) for frame in frames[:4]])
    converted = CONVERSIONS[precision](graph, seen)
    report = compile_report(attach_head(converted, "patchcore", graph.spec, graph.preprocess).SerializeToString())
    assert report.errors == () and report.built


@needs_compiler
def test_a_refused_operator_is_named() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        transposed (uint8[1, 8, 8, 3] frames) => (float[1, 3, 8, 8] planes) {
            turned = Transpose <perm = [0, 3, 1, 2]> (frames)
            planes = Cast <to = 1> (turned)
        }"""
    )
    report = compile_report(model.SerializeToString())
    assert not report.built
    assert "ranspose" in " ".join(report.errors) or "UINT8" in " ".join(report.errors).upper()


@needs_compiler
@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08" * 4000])
def test_damaged_bytes_are_a_report(content: bytes) -> None:
    assert not compile_report(content).built


def child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """Let the child process run `code` in place of the compiler."""
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\n{code}\n")
    script.chmod(0o755)
    monkeypatch.setattr(compiler, "compiler_installed", lambda: True)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed (signal 11)"),
        ("print('warming up'); sys.exit('out of luck')", "exit code 1: out of luck"),
        ("print('[1, 2]')", "exit code 0: no message"),
        ("print('{}')", "exit code 0: no message"),
        ("time.sleep(60)", "did not end within 1 s"),
    ],
)
def test_however_the_child_ends_the_parent_reports(
    code: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    child(monkeypatch, tmp_path, code)
    report = compile_report(b"graph", longest_s=1.0 if "sleep" in code else 60.0)
    assert not report.built
    assert message in report.errors[0]


def test_a_missing_compiler_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "compiler_installed", lambda: False)
    with pytest.raises(MissingExtra, match="pip install tensorrt-rtx"):
        compile_report(b"")


def test_dimensions_have_ranges_by_name() -> None:
    assert dimension_range("153+groups") == tuple(153 + n for n in dimension_range("groups"))
    for name in compiler.RANGES:
        low, typical, high = dimension_range(name)
        assert 1 <= low <= typical <= high
