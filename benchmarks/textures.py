"""Rendered textures with rendered defects and their pixel truth: data that every machine can make again from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]
# A plane [size, size] of gray levels around 0.
Draw = Callable[[np.random.Generator, int], Plane]


@dataclass(frozen=True)
class Textures:
    """good, test: uint8 [N, S, S, 3]. masks: bool [N, S, S] of the test images, empty for the good ones among them."""

    good: NDArray[np.uint8]
    test: NDArray[np.uint8]
    masks: NDArray[np.bool_]


def render(kind: str, size: int, good: int, test: int, seed: int = 0) -> Textures:
    """A texture of KINDS: `good` images to learn from, `test` others of which every second one has a defect."""
    rng = np.random.default_rng([seed, sorted(KINDS).index(kind)])
    return compose(KINDS[kind], KINDS[kind], size, good, test, rng)


def compose(known: Draw, asked: Draw, size: int, good: int, test: int, rng: np.random.Generator) -> Textures:
    """`good` images drawn by `known`, and `test` drawn by `asked`, of which every second one has a defect."""
    pictures = [_picture(known(rng, size), rng) for _ in range(good)]
    tested, masks = [], []
    for index in range(test):
        plane, mask = asked(rng, size), np.zeros((size, size), bool)
        if index % 2:
            plane, mask = DEFECTS[(index // 2) % len(DEFECTS)](plane, rng)
        tested.append(_picture(plane, rng))
        masks.append(mask)
    return Textures(np.stack(pictures), np.stack(tested), np.stack(masks))


def _grid(size: int) -> tuple[Plane, Plane]:
    rows, columns = np.mgrid[:size, :size].astype(np.float64)
    return rows, columns


def _weave(rng: np.random.Generator, size: int) -> Plane:
    """Two crossing threads, slightly turned and shifted from image to image."""
    rows, columns = _grid(size)
    angle, (up, left) = rng.normal(0, 0.04), rng.uniform(0, 2 * np.pi, 2)
    x, y = columns * np.cos(angle) - rows * np.sin(angle), columns * np.sin(angle) + rows * np.cos(angle)
    return np.maximum(np.sin(x * 0.9 + left), np.sin(y * 0.9 + up)) * 45 + rng.normal(0, 5, (size, size))


def _granite(rng: np.random.Generator, size: int) -> Plane:
    """Noise of three grain sizes."""
    total = np.zeros((size, size))
    for grain, weight in ((1, 9.0), (3, 16.0), (8, 16.0)):
        coarse = rng.standard_normal((size // grain + 2, size // grain + 2))
        total += weight * np.kron(coarse, np.ones((grain, grain)))[:size, :size]
    return total


def _brushed(rng: np.random.Generator, size: int) -> Plane:
    """Brushed metal: streaks along one direction, under a lamp from the side."""
    lines = np.repeat(rng.normal(0, 16, (size, 1)), size, axis=1)
    return lines + rng.normal(0, 4, (size, size)) + np.linspace(-15, 15, size)[None, :]


KINDS: dict[str, Draw] = {
    "brushed": _brushed,
    "granite": _granite,
    "weave": _weave,
}
Defect = tuple[Plane, NDArray[np.bool_]]


def _scratch(plane: Plane, rng: np.random.Generator) -> Defect:
    rows, columns = _grid(len(plane))
    angle, middle = rng.uniform(0, np.pi), rng.uniform(0.3, 0.7, 2) * len(plane)
    across = (columns - middle[0]) * np.sin(angle) - (rows - middle[1]) * np.cos(angle)
    along = (columns - middle[0]) * np.cos(angle) + (rows - middle[1]) * np.sin(angle)
    mask = (np.abs(across) < rng.uniform(0.8, 1.6)) & (np.abs(along) < rng.uniform(0.1, 0.25) * len(plane))
    return np.where(mask, plane + rng.choice([-1, 1]) * rng.uniform(40, 80), plane), mask


def _stain(plane: Plane, rng: np.random.Generator) -> Defect:
    rows, columns = _grid(len(plane))
    middle, radius = rng.uniform(0.2, 0.8, 2) * len(plane), rng.uniform(0.05, 0.12) * len(plane)
    mask = (columns - middle[0]) ** 2 + (rows - middle[1]) ** 2 < radius**2
    return np.where(mask, plane + rng.choice([-1, 1]) * rng.uniform(20, 40), plane), mask


def _smear(plane: Plane, rng: np.random.Generator) -> Defect:
    """A square in which the texture is wiped away."""
    size = len(plane)
    side = int(rng.uniform(0.1, 0.2) * size)
    top, left = rng.integers(0, size - side, 2)
    mask = np.zeros_like(plane, bool)
    mask[top : top + side, left : left + side] = True
    return np.where(mask, plane[mask].mean() + (plane - plane[mask].mean()) * 0.3, plane), mask


DEFECTS = (_scratch, _stain, _smear)


def _picture(plane: Plane, rng: np.random.Generator) -> Any:
    """uint8 [S, S, 3]: the plane around a middle grey that changes a little, with the noise of a camera."""
    lit = plane + rng.normal(128, 3) + rng.normal(0, 2, plane.shape)
    return np.repeat(lit.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
