"""What a backend is given of a recipe, and whether it fits the graph: asked by every backend before it is resident."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from orinspect_edge_runtime.backends import SEARCHED_HEAD
from orinspect_edge_runtime.bank_rule import HOST_ARRAYS
from orinspect_edge_runtime.errors import RecipeError
from orinspect_edge_runtime.manifest import TensorSpec

if TYPE_CHECKING:
    from orinspect_edge_runtime.recipe import Recipe

FRAMES = "frames"
Range = tuple[int, int, int]


def resident(recipe: Recipe, inputs: Sequence[TensorSpec], head: str) -> dict[str, NDArray[Any]]:
    """What a backend is given of a recipe: the graph's inputs, and what a search on the host obeys.

    Raises RecipeError when the recipe lacks an input.
    """
    names = [spec.name for spec in inputs if spec.name != FRAMES]
    if missing := [name for name in names if name not in recipe.arrays]:
        raise RecipeError(f"recipe {recipe.name!r} lacks {', '.join(missing)}; fit it again")
    beside = [name for name in HOST_ARRAYS if name in recipe.arrays] if head == SEARCHED_HEAD else []
    return {name: recipe.arrays[name] for name in (*names, *beside)}


def check_inputs(arrays: Mapping[str, NDArray[Any]], inputs: Sequence[TensorSpec]) -> None:
    """Raise RecipeError unless the arrays are exactly the graph's inputs beside `frames`, with its fixed dimensions."""
    specs = {spec.name: spec for spec in inputs if spec.name != FRAMES}
    if set(arrays) != set(specs):
        odd = ", ".join(sorted(set(specs) ^ set(arrays)))
        raise RecipeError(f"the recipe does not fit this graph (differs in: {odd}); fit it again")
    for name, array in arrays.items():
        shape = specs[name].shape
        fixed = [(have, want) for have, want in zip(array.shape, shape, strict=False) if isinstance(want, int)]
        if array.ndim != len(shape) or any(have != want for have, want in fixed):
            raise RecipeError(
                f"the recipe's {name} is {list(array.shape)}, this bundle's graph takes {list(shape)}: "
                "it was fitted for another encoder; fit it again"
            )


def check_ranges(
    arrays: Mapping[str, NDArray[Any]], inputs: Sequence[TensorSpec], profile: Mapping[str, Range], mend: str
) -> None:
    """Raise RecipeError when a free dimension lies outside of what an engine was built for. Call check_inputs first."""
    for spec in inputs:
        if spec.name == FRAMES:
            continue
        for have, dimension in zip(arrays[spec.name].shape, spec.shape, strict=True):
            number, _, name = str(dimension).rpartition("+")
            if name not in profile:
                continue
            size, (low, _, high) = have - int(number or 0), profile[name]
            if not low <= size <= high:
                raise RecipeError(
                    f"the recipe has {size} {name.replace('_', ' ')}, the engine was built for {low} to {high}: "
                    f"run  {mend} --recipe NAME --force  with this recipe's name"
                )
