"""Real but small encoders, exported once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from orinspect_edge_runtime.preprocess import PreprocessSpec
from orinspect_export.graph import EncoderGraph, export_encoder
from orinspect_export.int8 import Quantiser
from orinspect_train.encoder import Encoder
from orinspect_train.run import encoder_record, save_encoder

SIZE = 64
Frames = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture(scope="session")
def frames() -> Frames:
    """uint8 [32, 64, 64, 3]: waves of many directions and lengths on changing grounds, no two alike."""
    return waves(32)


def waves(count: int) -> Frames:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    angle, length, ground = rng.uniform(0, np.pi, count), rng.uniform(2, 16, count), rng.uniform(60, 190, (count, 3))
    wave = np.sin(
        2 * np.pi * length[:, None, None] * (np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y)
    )
    noise = rng.normal(0, 12, (count, SIZE, SIZE, 3))
    return np.clip(ground[:, None, None, :] + 50 * wave[..., None] + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory, frames: Frames) -> Callable[..., Path]:
    """A finished RUN folder of an encoder with random weights whose batch statistics fit the frames."""

    def make(name: str, **preprocess: Any) -> Path:
        torch.manual_seed(0)
        encoder = Encoder(name, SIZE)
        batch = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
        for module in encoder.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.5
                # timm starts the last one of a residual branch at zero, which would leave the branch without effect.
                torch.nn.init.ones_(module.weight)
        with torch.no_grad():
            for _ in range(8):
                encoder.train()(batch)
        spec = PreprocessSpec(**{"height": SIZE, "width": SIZE, **preprocess})
        half = (0.5, 0.5, 0.5)
        record = encoder_record(
            encoder.eval(), init="scratch", method="none", mean=half, std=half, preprocess=spec, adapted=False
        )
        run = tmp_path_factory.mktemp("run")
        save_encoder(run, encoder, record)
        return run

    return make


@pytest.fixture(scope="session")
def resnet_run(make_run: Callable[..., Path]) -> Path:
    """A residual network with ReLU: 0.4 million weights."""
    return make_run("test_resnet")


@pytest.fixture(scope="session")
def resnet(resnet_run: Path) -> EncoderGraph:
    return export_encoder(resnet_run)


@pytest.fixture(scope="session")
def squeeze(make_run: Callable[..., Path]) -> EncoderGraph:
    """An efficient net with SiLU and squeeze-excite: pooling in the middle of the trunk."""
    return export_encoder(make_run("test_efficientnet"))


@pytest.fixture(scope="session")
def lite0(make_run: Callable[..., Path]) -> EncoderGraph:
    """The default encoder: TensorFlow's SAME padding, ReLU6, depthwise convolutions."""
    return export_encoder(make_run("tf_efficientnet_lite0"))


@pytest.fixture(scope="session")
def lite0_int8(lite0: EncoderGraph, frames: Frames) -> Any:
    """The ONNX model with the first two layers kept in float32."""
    quantiser = Quantiser(lite0.model, frames[:4])
    return quantiser.build(quantiser.layers[:2])


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory, frames: Frames) -> Path:
    """The frames as files."""
    folder = tmp_path_factory.mktemp("images")
    for index, pixels in enumerate(frames):
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")
    return folder


@pytest.fixture(scope="session")
def run_graph() -> Callable[..., dict[str, Any]]:
    """Outputs by name of an ONNX model or bytes in onnxruntime."""

    def run(model: Any, **inputs: Any) -> dict[str, Any]:
        import onnxruntime

        content = model if isinstance(model, bytes) else model.SerializeToString()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs), strict=True))

    return run
