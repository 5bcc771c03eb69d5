"""Jigsaw (Noroozi & Favaro 2016, arXiv 1603.09246): in which order were the tiles of an image laid out?

Every tile goes through the encoder by itself. Tiles are cut with a random gap between them and each has a brightness
and contrast of its own, because edges that continue and colours would give the order away.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from orinspect_edge_runtime.errors import ConfigError
from orinspect_edge_runtime.schema import within
from orinspect_train.augment import Augmenter
from orinspect_train.encoder import Encoder
from orinspect_train.methods import Batch, Method, Normalise, Setting
from orinspect_train.methods.classes import classifier

# Share of a cell's side that its tile shows.
TILE_SHARE = 0.85
LEAST_TILE = 16
ORDER_SEED = 0


@dataclass(frozen=True)
class Options:
    """tiles: a side. orders: how many of the permutations are told apart, chosen far from each other. tile_dim,
    hidden_dim: of the head, for a tile and for all of them."""

    tiles: int = 3
    orders: int = 64
    tile_dim: int = 128
    hidden_dim: int = 512

    def __post_init__(self) -> None:
        within(self, {"tiles": (2, 3), "orders": (2, 1000), "tile_dim": (1, 65536), "hidden_dim": (1, 65536)})
        if self.tiles == 2 and self.orders > 24:
            raise ConfigError(f"orders is {self.orders}: four tiles have 24")


class Head(nn.Module):
    """Logits of the orders: one layer for each tile, shared, and a classifier of all tiles in their places."""

    def __init__(self, input_dim: int, options: Options) -> None:
        super().__init__()
        self.tile = nn.Linear(input_dim, options.tile_dim)
        self.order = classifier(options.tiles**2 * options.tile_dim, options.hidden_dim, options.orders)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Logits [B, orders] of [B, tiles, E]."""
        logits: Tensor = self.order(functional.relu(self.tile(embeddings)).flatten(1))
        return logits


def open_method(encoder: Encoder, setting: Setting, options: Options) -> Method:
    """The method for an encoder. Raises ConfigError when the tiles would be too small to show anything."""
    if tile_side(setting.size, options.tiles) < LEAST_TILE:
        raise ConfigError(f"jigsaw: {options.tiles} tiles a side are too small at size {setting.size}; use 64 or more")
    head = Head(encoder.embedding_dim, options)
    rendering = partial(render, augmenter=setting.augmenter, options=options)
    return Method(rendering, head, partial(loss_of, encoder, head))


def loss_of(encoder: Encoder, head: Head, normalise: Normalise, batch: Batch, done: float) -> tuple[Tensor, Tensor]:
    """Cross entropy of the orders, and the embeddings of the tiles, float32 [B tiles, E]."""
    tiles = batch["tiles"]
    batch_size, count = tiles.shape[:2]
    images = encoder.sized(normalise(tiles.flatten(0, 1)))
    embedding = encoder.pool_embedding(encoder.stages(images)).float()
    logits = head(embedding.view(batch_size, count, -1)).float()
    return functional.cross_entropy(logits, batch["order"].long()), embedding


def render(pixels: NDArray[np.uint8], rng: np.random.Generator, augmenter: Augmenter, options: Options) -> Batch:
    """`tiles` uint8 [B, tiles, S, S, 3] in the order that `order` float32 [B] numbers."""
    count = options.tiles**2
    orders = rng.integers(0, options.orders, len(pixels))
    layouts = np.array(far_orders(count, options.orders))[orders]
    cut = np.stack([_cut(image, options.tiles, rng)[layout] for image, layout in zip(pixels, layouts, strict=True)])
    changed = augmenter.jitter(cut.reshape(-1, *cut.shape[2:]), rng)
    return {"tiles": changed.reshape(cut.shape), "order": orders.astype(np.float32)}


def tile_side(size: int, tiles: int) -> int:
    """Pixels a side of a tile of a frame of so many pixels a side."""
    return int(size // tiles * TILE_SHARE)


@lru_cache(maxsize=8)
def far_orders(count: int, number: int) -> tuple[tuple[int, ...], ...]:
    """So many permutations of `count` tiles, each chosen to differ from all before it in most places; always the same."""
    rng = np.random.default_rng(ORDER_SEED)
    if count <= 4:
        pool = np.array(list(itertools.permutations(range(count))))
    else:
        pool = np.stack([rng.permutation(count) for _ in range(20 * number)])
    chosen = [int(rng.integers(len(pool)))]
    nearest = (pool != pool[chosen[0]]).sum(1)
    while len(chosen) < number:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, (pool != pool[chosen[-1]]).sum(1))
    return tuple(tuple(int(place) for place in pool[index]) for index in chosen)


def _cut(image: NDArray[np.uint8], tiles: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 [tiles * tiles, S, S, 3], row by row, each somewhere in its cell."""
    cell, side = image.shape[0] // tiles, tile_side(image.shape[0], tiles)
    corners = rng.integers(0, cell - side + 1, (tiles, tiles, 2))
    corners[..., 0] += cell * np.arange(tiles)[:, None]
    corners[..., 1] += cell * np.arange(tiles)[None, :]
    return np.stack([image[top : top + side, left : left + side] for top, left in corners.reshape(-1, 2)])
