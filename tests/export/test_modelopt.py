"""NVIDIA ModelOpt's placement of Q/DQ pairs: from what it once answered, and from itself where it is installed.

ORINSPECT_MODELOPT=PYTHON names the Python of an environment with nvidia-modelopt[onnx].
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from orinspect_edge_runtime.errors import InputError
from orinspect_export.exporter import ExportOptions
from orinspect_export.graph import EncoderGraph
from orinspect_export.int8 import Quantiser
from orinspect_export.modelopt import modelopt_placement
from orinspect_export.parity import cosines

RECORDED = Path(__file__).parents[1] / "data/modelopt"
# Answers as ModelOpt did, if it is asked by options that it has.
RECORDER = f"""#!{sys.executable}
import sys
import onnx
from pathlib import Path
given = sys.argv[3:]
assert sys.argv[1:3] == ["-m", "modelopt.onnx.quantization"]
known = Path({str(RECORDED / "options.txt")!r}).read_text().split()
unknown = [word for word in given if word.startswith("--") and word not in known]
assert not unknown, unknown
asked = dict(zip(given, given[1:]))
assert onnx.load(asked["--onnx_path"]).graph.name == "tiny"
assert Path(asked["--calibration_data_path"]).stat().st_size > 0
answer = onnx.parser.parse_model(Path({str(RECORDED / "int8.txt")!r}).read_text())
onnx.save(answer, asked["--output_path"])
"""
FRAMES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)


@pytest.fixture
def encoder() -> Any:
    return onnx.parser.parse_model(RECORDED.joinpath("encoder.txt").read_text())


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = tmp_path / "python"
        file.write_text(text)
        file.chmod(0o755)
        return file

    return write


def test_pairs_stand_where_modelopt_set_them(encoder: Any, script: Callable[[str], Path]) -> None:
    placement = modelopt_placement(encoder, FRAMES, script(RECORDER))
    number = {node.name: index for index, node in enumerate(encoder.graph.node)}
    expected = {"Conv_a": 0, "Conv_c": 0, "Add_s": 1}
    assert placement.places == {name: [(number[name], slot)] for name, slot in expected.items()}
    assert set(placement.ranges) == {"planes", "b"}
    assert placement.ranges["planes"] == pytest.approx(255, rel=1e-3), "the largest pixel that it calibrated on"


def test_the_graph_keeps_our_opset_and_what_the_gate_keeps(
    encoder: Any, script: Callable[[str], Path], run_graph: Callable[..., Any]
) -> None:
    quantiser = Quantiser(encoder, FRAMES, modelopt_placement(encoder, FRAMES, script(RECORDER)))
    exact = run_graph(encoder, frames=FRAMES)
    rounded = quantiser.build()
    assert [entry.version for entry in rounded.opset_import] == [17]
    assert sum(node.op_type == "QuantizeLinear" for node in rounded.graph.node) == 2
    found = run_graph(rounded, frames=FRAMES)
    assert 0.99 < cosines(found["patches"], exact["patches"]).min() < 1
    kept = run_graph(quantiser.build(quantiser.layers), frames=FRAMES)
    # Biases are corrected only where something is rounded.
    np.testing.assert_array_equal(kept["patches"], exact["patches"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("#!/bin/sh\necho \"No module named 'modelopt'\" >&2\nexit 1\n", "No module named 'modelopt': python -m venv"),
        ("#!/bin/sh\necho first >&2\necho 'RuntimeError: out of luck' >&2\nexit 1\n", "RuntimeError: out of luck"),
        ("#!/bin/sh\nexit 0\n", "ended without a graph"),
    ],
)
def test_what_went_wrong_is_told(encoder: Any, script: Callable[[str], Path], text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        modelopt_placement(encoder, FRAMES, script(text))


def test_a_python_without_modelopt_is_told(encoder: Any) -> None:
    with pytest.raises(InputError, match="No module named 'modelopt'.*python -m venv"):
        modelopt_placement(encoder, FRAMES, Path(sys.executable))


def test_a_python_that_is_not_there_is_told(encoder: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes a Python"):
        modelopt_placement(encoder, FRAMES, tmp_path / "none")


def test_only_modelopts_calibrators_go_with_it() -> None:
    options = ExportOptions(modelopt=Path("python"))
    assert (ExportOptions().calibrator_in_use, options.calibrator_in_use) == ("mse", "min-max")
    with pytest.raises(InputError, match="min-max, entropy, which ModelOpt has"):
        ExportOptions(modelopt=Path("python"), calibrator="mse")


@pytest.mark.skipif(
    "ORINSPECT_MODELOPT" not in os.environ, reason="NVIDIA MODELOPT WAS NOT TESTED: see the file's head"
)
def test_modelopt_itself_quantises_every_convolution(resnet: EncoderGraph, frames: Any) -> None:
    placement = modelopt_placement(resnet.model, frames[:8], Path(os.environ["ORINSPECT_MODELOPT"]))
    convolutions = {node.name for node in resnet.model.graph.node if node.op_type == "Conv"}
    assert len(convolutions.intersection(placement.places)) >= 0.8 * len(convolutions)
    Quantiser(resnet.model, frames[:8], placement).build()
