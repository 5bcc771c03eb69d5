"""The encoders that the documentation names: each takes a training step, and its graph gives what torch gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from orinspect_edge_runtime.preprocess import PreprocessSpec
from orinspect_export.graph import export_encoder
from orinspect_train.augment import Augmenter
from orinspect_train.config import PretrainConfig
from orinspect_train.encoder import Encoder, normalisation
from orinspect_train.methods import open_method
from orinspect_train.run import encoder_record, save_encoder

SIZE = 32
ENCODERS = (
    "tiny_resnet",
    "small_resnet",
    "resnet10t",
    "resnet18",
    "resnet34",
    "resnet50",
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "efficientnet_lite0",
    "convnext_atto",
    "convnext_femto",
    "vit_tiny_patch16_224",
)


@pytest.mark.parametrize("name", ENCODERS)
def test_it_learns_and_exports(name: str, textured: Callable[..., np.ndarray], tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder, images = Encoder(name, SIZE), textured(4, side=SIZE)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    _step(encoder, images)
    moved = {key for key, value in encoder.named_parameters() if not torch.equal(value, before[key])}
    # timm starts the last batch norm of a residual branch at zero, behind which nothing moves in the first step.
    assert len(moved) > 0.25 * len(list(encoder.parameters()))
    mean, std = normalisation(name)
    spec = PreprocessSpec(SIZE, SIZE)
    record = encoder_record(
        encoder.eval(), init="scratch", method="none", mean=mean, std=std, preprocess=spec, adapted=True
    )
    save_encoder(tmp_path, encoder, record)
    session = onnxruntime.InferenceSession(export_encoder(tmp_path).model.SerializeToString())
    found = session.run(["embedding", "patches"], {"frames": images})
    pixels = (torch.from_numpy(images) / 255 - torch.tensor(mean)) / torch.tensor(std)
    with torch.inference_mode():
        wanted = encoder(pixels.permute(0, 3, 1, 2))
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-3 * float(theirs.abs().max()))


def _step(encoder: Encoder, images: np.ndarray) -> None:
    """One step of DenseCL, whose loss reads the embedding and the patches."""
    options = {"queue": 16, "hidden_dim": 16, "projection_dim": 8}
    config = PretrainConfig(method="densecl", encoder=encoder.name, size=SIZE, options=options)
    method = open_method(config, encoder, Augmenter(gray=True), 1)
    batch = {key: torch.from_numpy(value) for key, value in method.render(images, np.random.default_rng(0)).items()}
    optimizer = torch.optim.AdamW(encoder.train().parameters(), lr=1e-3, weight_decay=0)
    loss, _ = method.loss(lambda pixels: pixels.permute(0, 3, 1, 2) / 127.5 - 1, batch, 0.0)
    assert torch.isfinite(loss)
    loss.backward()
    optimizer.step()
