"""Every method: batches that the seed alone decides, a loss that reaches all weights and falls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from orinspect_edge_runtime.errors import ConfigError, InputError
from orinspect_train.augment import Augmenter
from orinspect_train.config import METHOD_NAMES, PretrainConfig
from orinspect_train.encoder import Encoder, freeze_stages
from orinspect_train.health import examine
from orinspect_train.methods import Batch, Method, complete, open_method
from orinspect_train.methods.synthetic_defects import Heads
from orinspect_train.methods.teacher import rising
from orinspect_train.run import save_weights

SIZE = 64
Opened = tuple[Encoder, Method]


@dataclass(frozen=True)
class Case:
    """options: that make a method small. drop: least one of the loss in twelve steps on one batch. still: options that
    keep its target where it is meanwhile. encoder: that it can train."""

    options: dict[str, Any]
    drop: float
    still: dict[str, Any] = field(default_factory=dict)
    encoder: str = "test_resnet"


CASES = {
    "synthetic_defects": Case({}, 0.2),
    "nsa": Case({}, 0.2),
    "cutpaste": Case({}, 0.2),
    "vicreg": Case({"projection_dim": 64}, 5.0),
    "simclr": Case({"hidden_dim": 64}, 0.5),
    "barlow_twins": Case({"projection_dim": 64}, 5.0),
    "moco_v2": Case({"queue": 512, "hidden_dim": 64}, 0.3, {"momentum": 1.0}),
    "densecl": Case({"queue": 4096, "hidden_dim": 64}, 0.3, {"momentum": 1.0}),
    "byol": Case({"hidden_dim": 64}, 0.3),
    "dino": Case({"prototypes": 64, "hidden_dim": 64}, 0.3, {"momentum": 1.0, "centre_momentum": 1.0}),
    "simmim": Case({}, 0.1),
    "mae": Case({"decoder_dim": 64}, 0.1, encoder="test_vit"),
    "rotation": Case({}, 0.3),
    "csi": Case({"hidden_dim": 64}, 0.5),
    "jigsaw": Case({"tiles": 2, "orders": 8}, 0.3),
    "distillation": Case({"teacher": "test_resnet"}, 0.1),
}


def open_case(name: str, encoder: Encoder, teacher: Path, *, still: bool = False) -> Method:
    options = CASES[name].options | (CASES[name].still if still else {})
    if name == "distillation":
        options |= {"weights": str(teacher)}
    config = PretrainConfig(method=name, encoder=encoder.name, size=encoder.size, options=options)
    return open_method(config, encoder, Augmenter(gray=True), 1)


def open_encoder(seed: int = 0, name: str = "test_resnet") -> Encoder:
    torch.manual_seed(seed)
    encoder = Encoder(name, SIZE)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            # timm starts the last one of a residual branch at zero, behind which no gradient comes.
            nn.init.ones_(module.weight)
    return encoder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of another encoder, which `distillation` learns from."""
    file = tmp_path_factory.mktemp("teacher") / "weights.safetensors"
    save_weights(file, open_encoder(1))
    return file


@pytest.fixture(params=METHOD_NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(name: str, teacher: Path) -> Opened:
    encoder = open_encoder(name=CASES[name].encoder)
    return encoder, open_case(name, encoder, teacher)


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def tensors(batch: Batch) -> Batch:
    return {name: torch.from_numpy(value) for name, value in batch.items()}


def test_a_batch_is_decided_by_its_seed(opened: Opened, textured: Callable[..., np.ndarray]) -> None:
    _, method = opened
    images = textured(6)
    one, same, other = (method.render(images.copy(), np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert any(not np.array_equal(one[name], other[name]) for name in one)
    np.testing.assert_array_equal(images, textured(6))


def test_batches_hold_images_and_float_labels(opened: Opened, textured: Callable[..., np.ndarray]) -> None:
    _, method = opened
    for value in method.render(textured(6), np.random.default_rng(0)).values():
        assert len(value) == 6
        assert value.dtype == np.float32 or (value.dtype == np.uint8 and value.shape[-1] == 3)


def test_the_loss_reaches_every_head_and_the_layers_it_reads(
    opened: Opened, textured: Callable[..., np.ndarray]
) -> None:
    encoder, method = opened
    batch = tensors(method.render(textured(8), np.random.default_rng(0)))
    loss, embeddings = method.loss(normalise, batch, 0.0)
    assert loss.ndim == 0 and torch.isfinite(loss)
    assert embeddings.dtype == torch.float32 and embeddings.shape[1] == encoder.embedding_dim
    loss.backward()
    for part, parameter in [*method.heads.named_parameters(), *encoder.named_parameters()]:
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), part
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_training_on_one_batch_lowers_the_loss(name: str, teacher: Path, textured: Callable[..., np.ndarray]) -> None:
    encoder = open_encoder(name=CASES[name].encoder)
    method = open_case(name, encoder, teacher, still=True)
    batch = tensors(method.render(textured(8), np.random.default_rng(0)))
    trained = [p for p in [*encoder.parameters(), *method.heads.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    queues = {key: value.clone() for key, value in method.heads.named_buffers() if "memory_bank" in key}
    losses = []
    for _ in range(12):
        # One batch over and over would fill the queue with the answer itself.
        for key, value in queues.items():
            method.heads.get_buffer(key).copy_(value)
        loss, _ = method.loss(normalise, batch, 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - CASES[name].drop, losses


@pytest.mark.parametrize("name", ["moco_v2", "densecl", "byol", "dino"])
def test_a_teacher_follows_by_its_momentum_and_gets_no_gradient(
    name: str, opened: Opened, textured: Callable[..., np.ndarray]
) -> None:
    encoder, method = opened
    batch = tensors(method.render(textured(4), np.random.default_rng(0)))
    teacher: Any = method.heads.teacher
    student, follower = (next(p for p in part.parameters()) for part in (encoder, teacher.encoder))
    before = follower.clone()
    torch.testing.assert_close(before, student)
    with torch.no_grad():
        student += 1
    loss, _ = method.loss(normalise, batch, 0.0)
    torch.testing.assert_close(follower, before + 0.01)
    loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert any(key.startswith("teacher.encoder.") for key in method.heads.state_dict()), "a checkpoint must hold it"


@pytest.mark.parametrize("name", ["moco_v2", "densecl"])
def test_a_checkpoint_holds_the_queue(name: str, opened: Opened, textured: Callable[..., np.ndarray]) -> None:
    _, method = opened
    queues = [key for key in method.heads.state_dict() if key.endswith("memory_bank.bank")]
    assert len(queues) == (2 if name == "densecl" else 1)
    before = {key: value.clone() for key, value in method.heads.state_dict().items()}
    method.loss(normalise, tensors(method.render(textured(4), np.random.default_rng(0))), 0.0)
    after = method.heads.state_dict()
    assert all(not torch.equal(before[key], after[key]) for key in queues)


def test_a_momentum_rises_to_one() -> None:
    assert [rising(0.9, done) for done in (0, 0.5, 1)] == pytest.approx([0.9, 0.95, 1])


def test_half_of_the_images_carry_a_defect_and_their_patches_say_where(textured: Callable[..., np.ndarray]) -> None:
    encoder = Encoder("test_resnet", SIZE)
    method = open_method(PretrainConfig(size=SIZE), encoder, Augmenter(gray=True), 1)
    batch: dict[str, Any] = method.render(textured(20), np.random.default_rng(1))
    assert batch["patches"].shape == (20, np.prod(encoder.place_grid(SIZE)))
    np.testing.assert_array_equal(batch["defective"], batch["patches"].max(axis=1))
    assert batch["defective"][:10].mean() > 0.7
    assert not batch["defective"][10:].any()


def test_heads_give_a_logit_an_image_and_a_patch() -> None:
    encoder = Encoder("test_resnet", SIZE)
    image, patch = Heads(encoder)(torch.zeros(3, encoder.embedding_dim), torch.zeros(3, 16, encoder.place_dim))
    assert (image.shape, patch.shape) == ((3,), (3, 16))


@pytest.mark.parametrize("name", ["synthetic_defects", "nsa", "densecl"])
def test_while_patches_are_frozen_places_are_taught_in_the_map_of_the_embedding(
    name: str, textured: Callable[..., np.ndarray]
) -> None:
    encoder = Encoder("test_resnet", SIZE)
    freeze_stages(encoder, encoder.patch_stages)
    method = open_method(PretrainConfig(method=name, size=SIZE), encoder, Augmenter(gray=True), 1)
    batch = tensors(method.render(textured(8), np.random.default_rng(0)))
    method.loss(normalise, batch, 0.0)[0].backward()
    taught = {parameter_name for parameter_name, value in encoder.named_parameters() if value.grad is not None}
    assert taught == {parameter_name for parameter_name, value in encoder.named_parameters() if value.requires_grad}
    assert all(value.grad is not None for value in method.heads.parameters() if value.requires_grad)


def test_a_collapse_shows_in_the_embeddings(opened: Opened, textured: Callable[..., np.ndarray]) -> None:
    encoder, method = opened
    batch = tensors(method.render(textured(8), np.random.default_rng(0)))
    assert not examine(method.loss(normalise, batch, 0.0)[1]).collapsed
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
    assert examine(method.loss(normalise, batch, 0.0)[1]).collapsed


def test_options_are_filled_in_and_checked() -> None:
    config = complete(PretrainConfig(method="moco_v2", options={"queue": 64}))
    assert config.options["queue"] == 64 and config.options["temperature"] == 0.2
    assert complete(config) == config
    for options, message in (
        ({"temprature": 1.0}, r"\[moco_v2\] unknown key 'temprature': did you mean 'temperature'"),
        ({"queue": 0}, r"\[moco_v2\] queue is 0"),
        ({"queue": 1.5}, r"\[moco_v2\] queue is 1.5: it must be of type int"),
        ({"momentum": float("nan")}, "momentum is nan"),
    ):
        with pytest.raises(ConfigError, match=message):
            complete(PretrainConfig(method="moco_v2", options=options))


@pytest.mark.parametrize("options", [{}, {"tiles": 2, "orders": 8}])
def test_jigsaw_says_which_size_it_needs(options: dict[str, Any]) -> None:
    encoder = open_encoder()
    config = PretrainConfig(method="jigsaw", encoder=encoder.name, size=32, options=options)
    with pytest.raises(ConfigError, match="too small at size 32; use 64 or more"):
        open_method(config, encoder, Augmenter(gray=True), 1)


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("distillation", {}, "needs  teacher"),
        ("distillation", {"weights": "nowhere.safetensors", "teacher": "test_resnet"}, "nowhere.safetensors"),
        ("distillation", {"weights": "imagenet", "teacher": "resnet50"}, "no installed package brings"),
        ("jigsaw", {"tiles": 2, "orders": 64}, "four tiles have 24"),
        ("simmim", {"cells": 7}, "must divide the size of 64"),
        ("mae", {}, "mae needs a vision transformer such as vit_tiny_patch16_224; for 'test_resnet' use simmim"),
        ("mae", {"decoder_dim": 100}, r"\[mae\] decoder_dim is 100: it must be a multiple of 32"),
    ],
)
def test_options_that_cannot_work_are_said(name: str, options: dict[str, Any], error: str) -> None:
    encoder = open_encoder()
    config = PretrainConfig(method=name, encoder=encoder.name, size=SIZE, options=options)
    with pytest.raises((ConfigError, InputError), match=error):
        open_method(config, encoder, Augmenter(gray=True), 1)
