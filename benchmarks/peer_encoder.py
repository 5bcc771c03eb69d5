"""Encoders with the patches that anomalib makes, as bundles of ours: the same numbers on both sides of a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from precision_gate import _fit_batch_statistics
from torch import Tensor, nn
from torch.nn import functional

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.heads import HEADS
from orinspect_edge_runtime.manifest import EncoderSpec
from orinspect_edge_runtime.preprocess import PreprocessSpec
from orinspect_export.bundle_writer import write_bundle
from orinspect_export.golden import golden_arrays, golden_of_precision, to_npz
from orinspect_export.graph import EncoderGraph, FrameEncoder, fold, trace
from orinspect_export.head_graph import attach_head, graph_spec
from orinspect_export.int8_cpu import CpuQuantiser
from orinspect_train.encoder import Encoder
from orinspect_train.run import load_imagenet

# anomalib normalises every encoder's input by these.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYERS = {"resnet18": ("layer2", "layer3"), "tf_efficientnet_lite0": ("blocks.2", "blocks.4")}
STAGES = (2, 3)


class PeerEncoder(nn.Module):
    """anomalib's PatchCore features: each stage averaged 3x3 with zeros around it, brought to the finest, joined.

    The embedding, which anomalib has none of, is the deepest of these stages pooled.
    """

    def __init__(self, name: str, size: int, frames: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        encoder = Encoder(name, size)
        if name == "tf_efficientnet_lite0":
            load_imagenet(encoder)
        else:
            _fit_batch_statistics(encoder, frames)
        self.trunk = encoder.trunk.eval()
        self.channels = encoder.channels

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding [B, E] and patches [B, P, D] of normalised images [B, 3, H, W]."""
        stages = self.trunk(images)
        fine, deep = (functional.avg_pool2d(stages[stage], 3, 1, 1) for stage in STAGES)
        up = functional.interpolate(deep, scale_factor=2, mode="bilinear")
        return deep.flatten(2).mean(2), torch.cat([fine, up], 1).flatten(2).transpose(1, 2)


def make_bundle(name: str, size: int, frames: Any, folder: Path) -> tuple[Bundle, Path]:
    """A bundle with fp32 and int8-cpu of the encoder, and the file of its weights.

    frames: uint8 [n, size, size, 3], good images: for batch statistics and calibration.
    """
    encoder = PeerEncoder(name, size, frames)
    weights = folder / "weights.safetensors"
    weights.write_bytes(safetensors.torch.save({k: v.contiguous() for k, v in encoder.trunk.state_dict().items()}))
    channels = [encoder.channels[stage] for stage in STAGES]
    spec = EncoderSpec(name, "fixed", "none", MEAN, STD, STAGES, (size // 8,) * 2, sum(channels), channels[-1])
    preprocess = PreprocessSpec(size, size)
    graph = EncoderGraph(fold(trace(FrameEncoder(encoder, MEAN, STD).eval(), preprocess), name), spec, preprocess)
    # Every layer in INT8: what `orinspect export --labelled` arrives at for ResNet-18 (benchmarks/int8_cpu.py).
    models = {"fp32": graph.model, "int8-cpu": CpuQuantiser(graph.model, frames).build()}
    graphs = {
        (head, p): attach_head(m, head, spec, preprocess).SerializeToString()
        for p, m in models.items()
        for head in HEADS
    }
    made = {p: {h: (graphs[h, p], graph_spec(h, p, spec, preprocess)) for h in HEADS} for p in models}
    golden = golden_arrays(made["fp32"], spec, frames[:64], 0)
    golden |= golden_of_precision(golden, made["int8-cpu"])
    write_bundle(
        folder / "bundle",
        spec,
        preprocess,
        graphs=graphs,
        golden=to_npz(golden),
        parity={},
        created_with="vs_anomalib",
    )
    return Bundle.open(folder / "bundle"), weights
