"""The INT8 layout for CPUs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orinspect_edge_runtime.errors import InputError
from orinspect_export.build_cli import build
from orinspect_export.cli import export
from orinspect_export.graph import EncoderGraph
from orinspect_export.int8_cpu import CpuQuantiser
from orinspect_export.parity import cosines
from orinspect_export.qdq import weighted_layers


def test_features_stay_close_and_the_original_is_left_alone(
    resnet: EncoderGraph, frames: Any, run_graph: Callable[..., Any]
) -> None:
    before = resnet.model.SerializeToString()
    model = CpuQuantiser(resnet.model, frames).build()
    assert resnet.model.SerializeToString() == before
    exact, ours = (run_graph(graph, frames=frames[:4]) for graph in (resnet.model, model))
    assert cosines(ours["embedding"], exact["embedding"]).min() > 0.99
    assert model.ByteSize() < 0.45 * resnet.model.ByteSize()


def test_what_is_kept_is_not_quantised(resnet: EncoderGraph, frames: Any) -> None:
    layers = weighted_layers(resnet.model)
    model = CpuQuantiser(resnet.model, frames).build(layers[:3])
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    plain = {n.name for n in model.graph.node if n.op_type == "Conv" and made.get(n.input[1]) != "DequantizeLinear"}
    assert plain == set(layers[:3])


def test_only_the_stem_of_few_inputs_stays_in_float32(resnet: EncoderGraph, frames: Any) -> None:
    layers = weighted_layers(resnet.model)
    assert set(layers).difference(CpuQuantiser(resnet.model, frames).layers) == {layers[0]}


def test_a_bundle_with_it_is_made_here_and_never_built_for_tensorrt(
    resnet_run: Path, image_folder: Path, tmp_path: Path
) -> None:
    arguments = [str(resnet_run), "--out", str(tmp_path / "b"), "--calibration", str(image_folder)]
    loose = ["--precision", "fp32,int8-cpu", "--min-rank-correlation", "0.8", "--max-flips", "0.3"]
    made = CliRunner().invoke(export, [*arguments, *loose], standalone_mode=False)
    assert made.exception is None
    assert "int8-cpu" in made.stdout, made.stderr
    refused = CliRunner().invoke(build, [str(tmp_path / "b"), "--precision", "int8-cpu"], standalone_mode=False)
    assert isinstance(refused.exception, InputError)
    with pytest.raises(InputError, match="laid out for CPUs"):
        raise refused.exception
