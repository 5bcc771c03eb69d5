"""Picture sheets of the kinds of good image that a recipe tells apart: are they the kinds a person would name?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orinspect_edge_runtime.errors import ImageError
from orinspect_edge_runtime.overlay import thumbnail_uri
from orinspect_edge_runtime.preprocess import PreprocessSpec, read_frame
from orinspect_edge_runtime.recipe import Recipe

SHOWN, WIDTH = 16, 120


@dataclass(frozen=True)
class Sheet:
    """Some images of one group: data URI and file name of each. images: how many the group has; missing: how many of
    those that should be shown cannot be read here."""

    title: str
    pictures: tuple[tuple[str, str], ...]
    images: int
    missing: int


def group_sheets(recipe: Recipe, spec: PreprocessSpec, shown: int = SHOWN) -> tuple[Sheet, ...]:
    """A sheet for every group, its images taken evenly over the order of the fit; none for a recipe of an older format.

    The pictures are read again from the files that the recipe was fitted on.
    """
    if "image_groups" not in recipe.arrays:
        return ()
    return tuple(_sheet(recipe, group, spec, shown) for group in range(len(recipe.group_sizes)))


def _sheet(recipe: Recipe, group: int, spec: PreprocessSpec, shown: int) -> Sheet:
    own = np.flatnonzero(recipe.arrays["image_groups"] == group)
    names = [recipe.images[number] for number in own if recipe.images[number]]
    chosen, pictures = names[:: max(1, math.ceil(len(names) / shown))], []
    for name in chosen:
        try:
            pixels = read_frame(Path(name), spec).pixels
        except ImageError:
            continue
        pictures.append((thumbnail_uri(pixels, WIDTH), Path(name).name))
    title = f"Kind {group + 1}: {len(names)} image{'' if len(names) == 1 else 's'}"
    return Sheet(title, tuple(pictures), len(names), len(chosen) - len(pictures))
