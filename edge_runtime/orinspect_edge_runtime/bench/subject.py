"""What is measured: the graph of a precision with a head's inputs, of a recipe or of golden."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from orinspect_edge_runtime.backends import Backend, open_backend
from orinspect_edge_runtime.backends.recipe_inputs import resident
from orinspect_edge_runtime.bench.plan import BenchOptions
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import RecipeError
from orinspect_edge_runtime.golden import Arrays, head_arrays
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.scorers import SCORERS


@dataclass(frozen=True)
class Subject:
    """A head by name with what a backend gets for it. recipe: where they come from, None for golden."""

    head: str
    arrays: dict[str, NDArray[Any]]
    recipe: Recipe | None


def find_subject(bundle: Bundle, options: BenchOptions, golden: Arrays) -> Subject:
    """Head and inputs: of the recipe when one is named, the golden ones otherwise.

    Raises RecipeError when the recipe is missing or has no head in the graph.
    """
    if options.recipe is None:
        return Subject(options.head, head_arrays(golden, options.head), None)
    recipe = bundle.recipe(options.recipe)
    scorer = SCORERS[recipe.scorer]
    if not scorer.has_map:
        raise RecipeError(f"recipe {options.recipe!r} has no head in the graph; name another recipe")
    inputs = bundle.manifest.graph(recipe.precision, scorer.head).inputs[1:]
    return Subject(scorer.head, resident(recipe, inputs, scorer.head), recipe)


def open_subject(bundle: Bundle, precision: str, subject: Subject, options: BenchOptions) -> Backend:
    """The backend of one precision with the subject's inputs; close it afterwards."""
    spec = bundle.manifest.graph(precision, subject.head)
    backend = open_backend(
        partial(bundle.read, spec.file),
        spec,
        name=options.backend,
        threads=options.threads,
        bundle=bundle.path,
        arrays=subject.arrays,
    )
    try:
        backend.set_inputs(subject.arrays)
    except BaseException:
        backend.close()
        raise
    return backend
