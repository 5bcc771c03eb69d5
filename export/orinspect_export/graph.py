"""The encoder of a run as an ONNX graph: camera bytes in, embedding and patch features out.

The one module that needs the training package. What is traced here is pure fp32; heads (head_graph.py) are attached and
precisions (fp16.py, int8.py) are written into the graph afterwards.
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.manifest import EncoderSpec
from orinspect_edge_runtime.preprocess import PreprocessSpec
from orinspect_export.activations import Frames, activation_values
from orinspect_export.batch_shapes import fix_shapes
from orinspect_train.defect_changes import defect_changes
from orinspect_train.looks import Looks, looking, told
from orinspect_train.methods.rotation import TURNS
from orinspect_train.run import load_encoder
from orinspect_train.run_folder import STUDENT_ENTRY
from orinspect_train.student import load_student

if TYPE_CHECKING:
    import onnx

# The newest opset that TensorRT 10.3 (JetPack 6.1) and everything after it reads; IR version 8 is of the same time.
OPSET, IR_VERSION = 17, 8
# Operators that would mean shapes are still computed at run time, or padding was left beside the convolutions.
UNFOLDED = frozenset({"Shape", "ConstantOfShape", "Range", "NonZero", "If", "Loop", "Pad", "BatchNormalization"})


class FrameEncoder(nn.Module):
    """An encoder with the normalisation in front: uint8 frames [B, H, W, 3] to embedding [B, E], patches [B, P, D].

    mean, std: per RGB channel, for pixels in 0..1.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, encoder: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.encoder = encoder
        means, deviations = torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)
        self.register_buffer("scale", 1 / (255 * deviations), persistent=False)
        self.register_buffer("shift", -means / deviations, persistent=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Cast first: TensorRT refuses to transpose uint8."""
        pixels = frames.float().permute(0, 3, 1, 2)
        embedding, patches = self.encoder(pixels * self.scale + self.shift)
        return embedding, patches


@dataclass(frozen=True)
class EncoderGraph:
    """model: fp32 ONNX (`frames` -> `embedding`, `patches`), free batch size. spec, preprocess: for the manifest."""

    model: onnx.ModelProto
    spec: EncoderSpec
    preprocess: PreprocessSpec


def open_run(
    run: Path, *, turns: bool = False, second_scale: float | None = None
) -> tuple[FrameEncoder, EncoderSpec, PreprocessSpec]:
    """The encoder of a RUN folder with its normalisation, and what a manifest says about it.

    turns: embed the four quarter turns of each frame (see turned.py). second_scale: take patches of each frame at so many
    times the size too (see two_scales.py). Raises InputError: missing or damaged files, a newer format, a model size that
    the encoder's stages do not fit, turns of frames that are not square, or a second scale that the encoder does not take.
    """
    encoder, record = load_encoder(run)
    try:
        mean, std = _channels(record["mean"]), _channels(record["std"])
        preprocess = PreprocessSpec(**record["preprocess"])
    except (TypeError, ValueError) as error:
        raise InputError(f"{run}: its record of the normalisation or model size is damaged ({error})") from error
    small, looks = (preprocess.height, preprocess.width), Looks(turns, second_scale)
    try:
        seen, size = looking(encoder, small, looks)
    except InputError as error:
        raise InputError(f"{run}: {error}") from error
    preprocess = replace(preprocess, height=size[0], width=size[1])
    module = FrameEncoder(seen, mean, std).eval()
    grid = encoder.grid(*small)
    _try(run, module, preprocess, grid)
    spec = EncoderSpec(
        name=record["name"],
        init=str(record.get("init", "")),
        method=f"{record.get('method', '')}{told(looks, small)}",
        mean=mean,
        std=std,
        layers=tuple(record["layers"]),
        grid=grid,
        patch_dim=(1 if second_scale is None else 2) * encoder.patch_dim,
        embedding_dim=(TURNS if turns else 1) * encoder.embedding_dim,
        adapted=bool(record.get("adapted", True)),
    )
    return module, spec, preprocess


def export_encoder(run: Path, *, turns: bool = False, second_scale: float | None = None) -> EncoderGraph:
    """Trace the encoder of a run and fold everything that the fixed model size makes constant.

    turns, second_scale: as of `open_run`. Raises InputError as `open_run` does, and when the encoder keeps operators that do
    not fold.
    """
    module, spec, preprocess = open_run(run, turns=turns, second_scale=second_scale)
    return EncoderGraph(fold(trace(module, preprocess), spec.name), spec, preprocess)


def changes_by_defects(encoder: EncoderGraph, frames: Frames, seed: int) -> NDArray[np.float32]:
    """What defects drawn on frames change in the encoder's patches, float32 [D, D] (see defect_changes.py)."""

    def patches_of(some: Frames) -> NDArray[np.float32]:
        return np.concatenate([values["patches"] for values in activation_values(encoder.model, ["patches"], some)])

    return defect_changes(patches_of, frames, seed)


@dataclass(frozen=True)
class StudentGraph:
    """encoder: the graph whose patches are the student's residuals. learnt: fingerprints of the images it learnt from."""

    encoder: EncoderGraph
    learnt: tuple[str, ...]


def export_student(run: Path, encoder: EncoderGraph) -> StudentGraph | None:
    """The encoder of a run with its student, or None when the run has none. encoder: of `export_encoder`.

    Raises InputError: a damaged student, or an encoder that looks more than once, which the student's does not.
    """
    _, record = load_encoder(run)
    if STUDENT_ENTRY not in record:
        return None
    studied, record = load_student(run)
    plain = (studied.encoder.embedding_dim, studied.encoder.patch_dim)
    if (encoder.spec.embedding_dim, encoder.spec.patch_dim) != plain:
        raise InputError(
            f"{run} has a student, which goes with neither --turns nor --second-scale; export the run without one"
        )
    module = FrameEncoder(studied, encoder.spec.mean, encoder.spec.std).eval()
    model = fold(trace(module, encoder.preprocess), encoder.spec.name)
    learnt = tuple(map(str, record[STUDENT_ENTRY].get("images", ())))
    return StudentGraph(EncoderGraph(model, encoder.spec, encoder.preprocess), learnt)


def trace(module: FrameEncoder, preprocess: PreprocessSpec) -> bytes:
    """ONNX bytes of the module as torch writes them, opset 17."""
    frames = torch.zeros(2, preprocess.height, preprocess.width, 3, dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        file = Path(folder, "encoder.onnx")
        # The tracing exporter writes opset 17 itself; the newer one writes 18 and converts down.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (frames,),
            file,
            input_names=["frames"],
            output_names=["embedding", "patches"],
            dynamic_axes={name: {0: "batch"} for name in ("frames", "embedding", "patches")},
            opset_version=OPSET,
            dynamo=False,
        )
        return file.read_bytes()


def fold(traced: bytes, name: str) -> onnx.ModelProto:
    """Constants folded, padding merged into the convolutions. Raises InputError when shape arithmetic stays."""
    import onnx
    import onnxslim

    model: Any = onnxslim.slim(onnx.load_from_string(traced))
    constants_to_initializers(model)
    fix_shapes(model)
    model = onnxslim.slim(model)
    left = sorted(UNFOLDED.intersection(node.op_type for node in model.graph.node))
    if left:
        operators = ", ".join(left)
        raise InputError(f"the encoder {name!r} keeps {operators} in its graph: use another encoder or model size")
    constants_to_initializers(model)
    separate_weights(model)
    del model.graph.value_info[:], model.metadata_props[:]
    model.ir_version, model.producer_name, model.producer_version, model.doc_string = IR_VERSION, "orinspect", "", ""
    model.graph.name = name
    for node in model.graph.node:
        node.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    return model


def constants_to_initializers(model: onnx.ModelProto) -> None:
    """Turn Constant nodes into initializers, so that later passes find every constant in one place."""
    kept = []
    for node in model.graph.node:
        values = [a.t for a in node.attribute if a.name == "value"] if node.op_type == "Constant" else []
        if values:
            values[0].name = node.output[0]
            model.graph.initializer.append(values[0])
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def separate_weights(model: onnx.ModelProto) -> None:
    """Give each convolution weights of its own: those of a second pass get other INT8 ranges and equalised channels."""
    used = set[str]()
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for index, node in enumerate(model.graph.node):
        for slot, name in enumerate(node.input[1:] if node.op_type == "Conv" else (), 1):
            if name in used:
                node.input[slot] = f"{name}_of_{index}"
                model.graph.initializer.add().CopyFrom(tensors[name])
                model.graph.initializer[-1].name = node.input[slot]
            used.add(name)


def _try(run: Path, module: FrameEncoder, preprocess: PreprocessSpec, grid: tuple[int, int]) -> None:
    """Run one frame: stages that do not fit each other show here, with a message, and not inside the exporter."""
    size = f"{preprocess.width}x{preprocess.height}"
    try:
        with torch.inference_mode():
            _, patches = module(torch.zeros(1, preprocess.height, preprocess.width, 3, dtype=torch.uint8))
    except RuntimeError as error:
        raise InputError(f"{run}: the encoder refuses {size} pixels; use sides that are multiples of 32") from error
    if patches.shape[1] != grid[0] * grid[1]:
        raise InputError(f"{run}: {size} pixels leave part of a patch over; use sides that are multiples of 32")


def _channels(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != 3:
        raise ValueError(f"{len(numbers)} channels where 3 are needed")
    return numbers
