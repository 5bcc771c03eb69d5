from __future__ import annotations

import numpy as np
import pytest
import torch

from orinspect_edge_runtime.errors import ConfigError
from orinspect_train.encoder import Encoder, freeze_stages, normalisation

SMALL = "test_efficientnet"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(SMALL, 64).eval()


def test_the_embedding_is_mean_maximum_and_deviation_of_the_deepest_stage(encoder: Encoder) -> None:
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        embedding, _ = encoder(images)
        deep = encoder.stages(images)[4].double().numpy()
    expected = np.concatenate([deep.mean((2, 3)), deep.max((2, 3)), deep.std((2, 3))], axis=1)
    assert embedding.shape == (2, encoder.embedding_dim)
    np.testing.assert_allclose(embedding.numpy(), expected, atol=2e-3)


def test_patches_lie_on_the_grid_row_by_row(encoder: Encoder) -> None:
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        _, patches = encoder(images)
        shallow, deep = (encoder.stages(images)[layer].numpy() for layer in encoder.layers)
    rows, columns = encoder.grid(64, 96)
    assert (rows, columns) == (4, 6)
    assert patches.shape == (2, rows * columns, encoder.patch_dim)
    halved = shallow[1].reshape(-1, rows, 2, columns, 2).mean((2, 4))
    grid = np.concatenate([halved, deep[1]])
    for row, column in np.ndindex(rows, columns):
        around = grid[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        np.testing.assert_allclose(patches[1, row * columns + column].numpy(), around.mean((1, 2)), atol=1e-5)


def test_while_their_stages_are_frozen_no_patch_feature_changes(encoder: Encoder) -> None:
    stages = [torch.rand(2, channels, 64 // stride, 64 // stride) for channels, stride in zip(
        encoder.channels, encoder.reductions, strict=True)]  # fmt: skip
    assert encoder.learns_patches and torch.equal(encoder.place_map(stages), encoder.patch_map(stages))
    assert encoder.place_map(stages).shape == (2, encoder.place_dim, *encoder.place_grid(64))
    freeze_stages(encoder, encoder.patch_stages - 1)
    assert encoder.learns_patches
    freeze_stages(encoder, encoder.patch_stages)
    assert not encoder.learns_patches and torch.equal(encoder.place_map(stages), stages[encoder.embedding_layer])
    assert encoder.place_map(stages).shape == (2, encoder.place_dim, *encoder.place_grid(64))
    embedding, patches = encoder(torch.rand(2, 3, 64, 64))
    assert embedding.requires_grad and not patches.requires_grad


def test_a_constant_stage_has_a_finite_gradient(encoder: Encoder) -> None:
    stages = [torch.zeros(1, 1, 1, 1)] * 4 + [torch.ones(1, encoder.channels[4], 2, 2, requires_grad=True)]
    encoder.pool_embedding(stages).sum().backward()
    gradient = stages[4].grad
    assert gradient is not None and torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", [SMALL, "test_resnet"])
def test_freezing_spares_what_lies_deeper(name: str) -> None:
    counts = []
    for stages in range(6):
        encoder = Encoder(name, 64)
        freeze_stages(encoder, stages)
        trained = [parameter.requires_grad for parameter in encoder.parameters()]
        assert trained == sorted(trained), "a frozen parameter follows a trained one"
        counts.append(sum(trained))
    assert counts[0] == len(trained) and counts[-1] == 0
    assert counts == sorted(counts, reverse=True)


def test_two_frozen_stages_of_lite0_are_the_stem_and_blocks_0_and_1() -> None:
    encoder = Encoder("tf_efficientnet_lite0", 64)
    freeze_stages(encoder, 2)
    frozen = {".".join(n.split(".")[:2]) for n, p in encoder.trunk.named_parameters() if not p.requires_grad}
    assert frozen == {"conv_stem.weight", "bn1.weight", "bn1.bias", "blocks.0", "blocks.1"}


def test_an_unknown_encoder_names_its_nearest_neighbour() -> None:
    with pytest.raises(ConfigError, match="no encoder 'resnet_18': did you mean 'resnet18'"):
        Encoder("resnet_18", 64)


def test_an_encoder_without_the_stage_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"has 4 feature stages, numbered from 0; \(4,\) are not"):
        Encoder("test_convnext", 64, layers=(4,))


@pytest.mark.parametrize(
    ("name", "layers", "embedding", "frozen"),
    [("resnet18", (2, 3), 4, 4), ("convnext_atto", (1, 2), 3, 3), ("vit_tiny_patch16_224", (0, 1), 2, 2)],
)
def test_patches_come_from_strides_8_and_16(name: str, layers: tuple[int, ...], embedding: int, frozen: int) -> None:
    encoder = Encoder(name, 96).eval()
    assert (encoder.layers, encoder.embedding_layer, encoder.patch_stages) == (layers, embedding, frozen)
    with torch.inference_mode():
        pooled, patches = encoder(torch.zeros(1, 3, 96, 96))
    assert pooled.shape == (1, encoder.embedding_dim)
    assert patches.shape == (1, 36, encoder.patch_dim)


def test_the_normalisation_is_the_models_own() -> None:
    assert normalisation("tf_efficientnet_lite0") == ((0.5,) * 3, (0.5,) * 3)
    assert normalisation("resnet18")[0] == pytest.approx((0.485, 0.456, 0.406))
