"""The traced encoder: the same numbers as torch, and nothing in the file that a TensorRT parser trips over."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import fit_to_model
from orinspect_export.graph import UNFOLDED, EncoderGraph, export_encoder, open_run
from orinspect_export.qdq import weighted_layers


@pytest.mark.parametrize("batch", [1, 3])
def test_onnxruntime_gives_what_torch_gives(
    batch: int, resnet_run: Path, resnet: EncoderGraph, frames: Any, run_graph: Callable[..., Any]
) -> None:
    module, spec, _ = open_run(resnet_run)
    with torch.inference_mode():
        embedding, patches = module(torch.from_numpy(frames[:batch]))
    outputs = run_graph(resnet.model, frames=frames[:batch])
    assert outputs["patches"].shape == (batch, spec.grid[0] * spec.grid[1], spec.patch_dim)
    np.testing.assert_allclose(outputs["embedding"], embedding.numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(outputs["patches"], patches.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
@pytest.mark.parametrize("batch", [1, 4])
def test_encoders_that_ask_for_shapes_are_exported_without_any(
    name: str, batch: int, make_run: Callable[..., Path], frames: Any, run_graph: Callable[..., Any]
) -> None:
    run = make_run(name)
    model = export_encoder(run).model
    assert not {"Shape", "Expand", "ConstantOfShape", "Where"}.intersection(n.op_type for n in model.graph.node)
    with torch.inference_mode():
        embedding, patches = open_run(run)[0](torch.from_numpy(frames[:batch]))
    outputs = run_graph(model, frames=frames[:batch])
    np.testing.assert_allclose(outputs["embedding"], embedding.numpy(), rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(outputs["patches"], patches.numpy(), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("batch", [1, 3])
def test_turns_are_embedded_as_frames_that_lie_so(
    name: str, batch: int, make_run: Callable[..., Path], frames: Any, run_graph: Callable[..., Any]
) -> None:
    run, some = make_run(name), frames[:batch]
    plain, turned = export_encoder(run), export_encoder(run, turns=True)
    assert turned.spec.embedding_dim == 4 * plain.spec.embedding_dim and "4 turns" in turned.spec.method
    lying = [run_graph(plain.model, frames=np.rot90(some, turns, (1, 2)).copy()) for turns in range(4)]
    found = run_graph(turned.model, frames=some)
    expected = np.concatenate([outputs["embedding"] for outputs in lying], axis=1)
    np.testing.assert_allclose(found["embedding"], expected, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(found["patches"], lying[0]["patches"], rtol=2e-3, atol=2e-4)


def test_turns_need_square_frames(make_run: Callable[..., Path]) -> None:
    run = make_run("test_resnet", height=64, width=96)
    open_run(run)
    with pytest.raises(InputError, match="96x64 pixels: --turns needs square ones"):
        open_run(run, turns=True)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
@pytest.mark.parametrize("batch", [1, 3])
def test_patches_of_a_second_scale_follow_those_of_the_first(
    name: str, batch: int, make_run: Callable[..., Path], frames: Any, run_graph: Callable[..., Any]
) -> None:
    run = make_run(name)
    plain, graph = export_encoder(run), export_encoder(run, second_scale=1.5)
    assert (graph.spec.patch_dim, graph.spec.embedding_dim) == (2 * plain.spec.patch_dim, plain.spec.embedding_dim)
    assert graph.spec.grid == plain.spec.grid and "64x64 pixels, patches at two scales" in graph.spec.method
    assert (graph.preprocess.height, graph.preprocess.width) == (96, 96)
    large = np.stack([fit_to_model(frame, graph.preprocess) for frame in frames[:batch]])
    found = run_graph(graph.model, frames=large)
    with torch.inference_mode():
        expected = open_run(run, second_scale=1.5)[0](torch.from_numpy(large))
    for output, values in zip(("embedding", "patches"), expected, strict=True):
        np.testing.assert_allclose(found[output], values.numpy(), rtol=2e-3, atol=2e-4)


def test_each_convolution_of_two_passes_has_weights_of_its_own(make_run: Callable[..., Path]) -> None:
    run = make_run("test_resnet")
    plain, model = export_encoder(run).model, export_encoder(run, second_scale=1.5).model
    assert len(weighted_layers(model)) > len(weighted_layers(plain)), "and what resamples is no layer"
    assert {node.op_type for node in model.graph.node if node.name in weighted_layers(model)} == {"Conv"}
    used = [name for node in model.graph.node if node.op_type == "Conv" for name in node.input[1:]]
    assert len(used) == len(set(used))


@pytest.mark.parametrize(
    ("name", "scale", "message"),
    [
        ("test_resnet", 1.2, "--second-scale 1.2 leaves the size as it is: try 1.25 or more"),
        ("test_vit", 1.5, "'test_vit' takes images of one size: no --second-scale with it"),
    ],
)
def test_a_scale_that_an_encoder_does_not_take(
    name: str, scale: float, message: str, make_run: Callable[..., Path]
) -> None:
    with pytest.raises(InputError, match=message):
        open_run(make_run(name), second_scale=scale)


def test_normalisation_is_in_the_graph(resnet_run: Path, frames: Any) -> None:
    module, _, _ = open_run(resnet_run)
    by_hand = (torch.from_numpy(frames[:2]).permute(0, 3, 1, 2).double() / 255 - 0.5) / 0.5
    with torch.inference_mode():
        expected = module.encoder(by_hand.float())[0]
        assert torch.allclose(module(torch.from_numpy(frames[:2]))[0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet", "squeeze", "lite0"])
def test_the_file_is_what_old_parsers_read(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name).model
    operators = [node.op_type for node in model.graph.node]
    assert model.opset_import[0].version == 17
    assert model.ir_version == 8
    assert not UNFOLDED.intersection(operators)
    assert "Constant" not in operators
    assert operators.index("Cast") < operators.index("Transpose")
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_same_padding_became_part_of_the_convolutions(lite0: EncoderGraph) -> None:
    pads = [
        list(a.ints) for n in lite0.model.graph.node if n.op_type == "Conv" for a in n.attribute if a.name == "pads"
    ]
    assert [0, 0, 1, 1] in pads


def test_no_path_of_this_computer_is_in_the_file(resnet: EncoderGraph) -> None:
    content = resnet.model.SerializeToString()
    assert b".py" not in content
    assert str(Path.home()).encode() + b"/" not in content


def test_two_exports_are_the_same_file(resnet_run: Path, resnet: EncoderGraph) -> None:
    assert export_encoder(resnet_run).model.SerializeToString() == resnet.model.SerializeToString()


def test_a_size_that_leaves_half_a_patch_is_refused(make_run: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="multiples of 32"):
        open_run(make_run("test_resnet", height=72, width=64))


def damaged(run: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    shutil.copytree(run, target)
    record = json.loads((target / "encoder.json").read_text())
    change(record)
    (target / "encoder.json").write_text(json.dumps(record))
    return target


@pytest.mark.parametrize(
    ("field", "value"), [("mean", [0.5]), ("std", None), ("preprocess", {"height": "x"}), ("mean", ["a", "b", "c"])]
)
def test_a_damaged_record_is_told(field: str, value: Any, resnet_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="damaged"):
        open_run(damaged(resnet_run, tmp_path / "run", lambda record: record.update({field: value})))


def test_a_missing_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run"):
        open_run(tmp_path / "nowhere")


def test_truncated_weights_are_told(resnet_run: Path, tmp_path: Path) -> None:
    content = (resnet_run / "encoder.safetensors").read_bytes()[:1000]
    digest = hashlib.sha256(content).hexdigest()
    run = damaged(resnet_run, tmp_path / "run", lambda record: record.update(weights_sha256=digest))
    (run / "encoder.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="weights do not fit"):
        open_run(run)
