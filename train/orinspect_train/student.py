"""The student: a small network that foretells an encoder's patch features from one of its shallow stages.

It reads the deepest stage of stride 4 or less (of a transformer the first), which the graph computes anyway, instead of
the frames: edges and colours are there already, so it costs a sixth of the encoder's multiplications and is trained in a
minute. Trained on good images only, it explains how the surface of a good part looks; what it leaves of a patch feature
is the residual that anomalies are sought in (`orinspect_edge_runtime/scorers/student.py`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from orinspect_edge_runtime.errors import ConfigError, InputError
from orinspect_train.encoder import Encoder
from orinspect_train.run import load_encoder, read_state
from orinspect_train.run_folder import STUDENT, STUDENT_ENTRY

WIDTH = 128
# Stages up to this stride see edges and colours.
SHALLOW_STRIDE = 4
# A channel that hardly varies is not blown up beyond this share of the mean spread.
LEAST_SPREAD = 0.01


class Standard(nn.Module):
    """Maps float [B, C, h, w] less their mean, in standard deviations, channel by channel."""

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("scale", torch.ones(1, channels, 1, 1))

    def fit(self, maps: Tensor) -> None:
        """Take mean and spread from maps [N, C, h, w]."""
        spread, mean = torch.std_mean(maps.float(), (0, 2, 3), keepdim=True)
        self.mean.copy_(mean)
        self.scale.copy_(1 / spread.clamp_min(LEAST_SPREAD * float(spread.mean()) + 1e-12))

    def forward(self, maps: Tensor) -> Tensor:
        return (maps - self.mean) * self.scale


class Student(nn.Module):
    """From the encoder's stage `layer`, float [B, C, h, w], to its patch map [B, D, rows, columns] in standard deviations.

    Raises ConfigError for an encoder whose stages are no powers of two apart.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.layer = max(sum(reduction <= SHALLOW_STRIDE for reduction in encoder.reductions) - 1, 0)
        channels, halvings = encoder.channels[self.layer], math.log2(encoder.stride / encoder.reductions[self.layer])
        if halvings != int(halvings):
            raise ConfigError(
                f"the encoder {encoder.name!r} has stages that no student fits: use tf_efficientnet_lite0"
            )
        self.stage, self.patches = Standard(channels), Standard(encoder.patch_dim)
        widths = [channels, *(max(WIDTH >> step, channels) for step in reversed(range(int(halvings)))), WIDTH]
        strides = [2] * int(halvings) + [1]
        layers = [_convolution(*shape) for shape in zip(widths, widths[1:], strides, strict=False)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(WIDTH, encoder.patch_dim, 1))

    def forward(self, stage: Tensor) -> Tensor:
        return self.layers(self.stage(stage))  # type: ignore[no-any-return]

    def residual_map(self, encoder: Encoder, stages: list[Tensor]) -> Tensor:
        """What it does not explain of the patch map, in standard deviations, [B, D, rows, columns]."""
        residual: Tensor = self.patches(encoder.patch_map(stages)) - self(stages[self.layer])
        return residual


class StudiedEncoder(nn.Module):
    """Features as of `Encoder`, but the patches are the student's residuals."""

    def __init__(self, encoder: Encoder, student: Student) -> None:
        super().__init__()
        self.encoder, self.student = encoder, student

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding [B, E] and residuals [B, rows * columns, D] of normalised float [B, 3, H, W]."""
        stages = self.encoder.stages(images)
        residuals = self.student.residual_map(self.encoder, stages).flatten(2).transpose(1, 2)
        return self.encoder.pool_embedding(stages), residuals


def load_student(run: Path) -> tuple[StudiedEncoder, dict[str, Any]]:
    """A finished run's encoder with its student, in evaluation mode on the CPU, and the content of encoder.json.

    Raises InputError as `run.load_encoder` does, and for a run without a student.
    """
    encoder, record = load_encoder(run)
    if STUDENT_ENTRY not in record:
        raise InputError(f"{run} has no student; train one with  orinspect student {run} IMAGES --out RUN2")
    try:
        weights = read_state(run / STUDENT, record[STUDENT_ENTRY]["weights_sha256"])
        student = Student(encoder)
        student.load_state_dict(weights)
    except (RuntimeError, KeyError, TypeError) as error:
        raise InputError(f"{run / STUDENT}: it does not fit the encoder {encoder.name!r}; train it again") from error
    return StudiedEncoder(encoder, student).eval(), record


def to_bytes(student: Student) -> bytes:
    """The content of a run's student.safetensors."""
    state = {name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()}
    return safetensors.torch.save(state)


def _convolution(channels: int, width: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, width, 3, stride, 1), nn.ReLU(inplace=True))
