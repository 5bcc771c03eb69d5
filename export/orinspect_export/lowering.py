"""The lower precisions of an encoder, each through the accuracy gate, with what was measured on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from orinspect_edge_runtime.dataset import read_dataset
from orinspect_edge_runtime.errors import CheckFailed
from orinspect_edge_runtime.preprocess import fit_to_model, read_frames
from orinspect_export.activation_statistics import (
    TensorStatistics,
    activation_statistics,
    half_threats,
    outlier_channels,
)
from orinspect_export.decisions import Judge
from orinspect_export.equalisation import depthwise_pairs, equalise
from orinspect_export.fp16 import half_layers, half_nodes, to_fp16, to_fp16_beside_int8
from orinspect_export.gate import Candidate, Gated, pass_gate
from orinspect_export.gate_journal import Remember, measure_anew
from orinspect_export.int8 import Placement, Quantiser, calibrate
from orinspect_export.int8_cpu import CpuQuantiser
from orinspect_export.layer_work import layer_work
from orinspect_export.modelopt import modelopt_placement
from orinspect_export.qdq import weighted_layers

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from orinspect_edge_runtime.preprocess import PreprocessSpec, Skipped
    from orinspect_export.exporter import ExportOptions
    from orinspect_export.graph import EncoderGraph
    from orinspect_export.images import ExportImages

# Of each label: enough for half a point of AUROC, few enough for a coffee.
MOST_LABELLED = 200
# What equalised channels lose to the bound of a ReLU6, in standard deviations of the scores: the strict budget bears .045
# in all, and with .03 and more of it lost the gate kept more layers than without (Fashion-MNIST).
MOST_CLIPPED = 0.01
INT8 = frozenset({"int8", "int8-cpu"})
Progress = Callable[[float], None]


@dataclass
class Lowered:
    """models: by precision. refused: by precision, why the budget could not be met. notes: JSON values by precision, and
    under other names what is common to all."""

    models: dict[str, onnx.ModelProto] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


def lower_precisions(
    encoder: EncoderGraph,
    images: ExportImages,
    options: ExportOptions,
    tell: Progress,
    remember: Remember = measure_anew,
) -> Lowered:
    """The encoder in every precision of the options but fp32, as far as the budget can be met.

    remember: see gate_journal.py. Raises InputError when the labelled images cannot be used.
    """
    lowered, wanted = Lowered(), [name for name in CANDIDATES if name in options.precisions]
    if not wanted:
        return lowered
    statistics = activation_statistics(encoder.model, images.calibration)
    judge = _judge(encoder, images, options)
    rounded = graph_to_round(encoder.model, images, judge) if INT8.intersection(wanted) else encoder.model
    for index, precision in enumerate(wanted):
        graph = rounded if precision in INT8 else encoder.model
        candidate, reasons = CANDIDATES[precision](graph, images, options, statistics)

        def part(share: float, index: int = index) -> None:
            tell((index + share) / len(wanted))

        try:
            gated = pass_gate(candidate, encoder.model, judge, options.budget, images.calibration, part, remember)
        except CheckFailed as error:
            lowered.refused[precision] = str(error)
            continue
        lowered.models[precision] = gated.model
        lowered.notes[precision] = _note(gated, candidate, reasons)
    quantiser = "orinspect" if options.modelopt is None else "NVIDIA ModelOpt"
    lowered.notes["calibration"] = {
        "images": list(images.names), "calibrator": options.calibrator_in_use, "quantiser": quantiser
    }  # fmt: skip
    lowered.notes["budget"] = asdict(options.budget)
    lowered.notes["activations"] = {name: asdict(found) for name, found in statistics.items()}
    return lowered


def graph_to_round(model: onnx.ModelProto, images: ExportImages, judge: Judge) -> onnx.ModelProto:
    """What int8 is made of: the graph equalised, unless that alone changes the scores so much that it would cost layers."""
    if not depthwise_pairs(model):
        return model
    alike = equalise(model, images.calibration)
    return alike if judge.agreement(alike).score_difference_sd <= MOST_CLIPPED else model


def _judge(encoder: EncoderGraph, images: ExportImages, options: ExportOptions) -> Judge:
    if options.labelled is None:
        return Judge(encoder.model, images.held_out)
    frames, labels = labelled_frames(options.labelled, encoder.preprocess, options.seed)
    return Judge(encoder.model, frames, labels=labels, known=images.calibration)


def labelled_frames(dataset: Path, spec: PreprocessSpec, seed: int) -> tuple[Any, Any]:
    """Frames uint8 [N, H, W, 3] and labels bool [N] (True: defective), up to 200 of each, drawn with the seed."""
    rng = np.random.default_rng(seed)
    every = read_dataset(dataset)
    chosen = []
    for defective in (False, True):
        alike = [image for image in every if image.is_defective == defective]
        chosen += [alike[index] for index in sorted(rng.permutation(len(alike))[:MOST_LABELLED])]
    skipped: list[Skipped] = []
    frames = {
        frame.source: fit_to_model(frame.pixels, spec) for frame in read_frames([c.path for c in chosen], spec, skipped)
    }
    kept = [image for image in chosen if str(image.path) in frames]
    return np.stack([frames[str(image.path)] for image in kept]), np.array([image.is_defective for image in kept])


def _fp16(
    model: onnx.ModelProto, images: ExportImages, options: ExportOptions, statistics: dict[str, TensorStatistics]
) -> tuple[Candidate, dict[str, str]]:
    lowered = {model.graph.node[index].name for index in half_nodes(model)}
    threats = {name: why for name, why in half_threats(model, statistics).items() if name in lowered}

    def build(kept: Collection[str]) -> onnx.ModelProto:
        return to_fp16(model, {*kept, *threats})

    layers = half_layers(model, threats)
    return Candidate("fp16", layers, layer_work(model, layers), build), threats


def _int8(
    model: onnx.ModelProto, images: ExportImages, options: ExportOptions, statistics: dict[str, TensorStatistics]
) -> tuple[Candidate, dict[str, str]]:
    quantiser = Quantiser(model, images.calibration, _placement(model, images, options))
    layers = set(weighted_layers(model))
    inputs = {node.name: node.input[0] for node in model.graph.node if node.name in layers}
    threats = half_threats(model, statistics)

    def build(kept: Collection[str]) -> onnx.ModelProto:
        return to_fp16_beside_int8(quantiser.build(kept), threats)

    work = layer_work(model, quantiser.layers)
    return Candidate("int8", quantiser.layers, work, build, quantiser.build), outlier_channels(statistics, inputs)


def _placement(model: onnx.ModelProto, images: ExportImages, options: ExportOptions) -> Placement:
    if options.modelopt is None:
        return calibrate(model, images.calibration, options.calibrator_in_use)
    return modelopt_placement(model, images.calibration, options.modelopt, options.calibrator_in_use)


def _int8_cpu(
    model: onnx.ModelProto, images: ExportImages, options: ExportOptions, statistics: dict[str, TensorStatistics]
) -> tuple[Candidate, dict[str, str]]:
    quantiser = CpuQuantiser(model, images.calibration)
    alike = Quantiser(model, images.calibration)
    never = set(alike.layers).difference(quantiser.layers)

    def probe(kept: Collection[str]) -> onnx.ModelProto:
        return alike.build({*kept, *never})

    work = layer_work(model, quantiser.layers)
    return Candidate("int8-cpu", quantiser.layers, work, quantiser.build, probe), {}


# What a layer works in when the precision would change the verdicts too much.
KEPT_IN = {"fp16": "float32", "int8": "fp16", "int8-cpu": "float32"}
CANDIDATES = {"fp16": _fp16, "int8": _int8, "int8-cpu": _int8_cpu}


def _note(gated: Gated, candidate: Candidate, reasons: dict[str, str]) -> dict[str, Any]:
    """What the manifest and the report say of one precision."""
    total = sum(candidate.work.values())
    return asdict(gated.agreement) | {
        "scored_images": gated.agreement.images,
        "naive": asdict(gated.naive),
        "layers": len(candidate.layers),
        "kept": gated.kept,
        "kept_work": {layer: candidate.work[layer] / total for layer in gated.kept},
        "kept_in": KEPT_IN[candidate.precision],
        "warnings": reasons,
        "graphs_tried": gated.tried,
        "lowered_work": gated.lowered_work,
    }
