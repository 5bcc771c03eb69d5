"""A recipe: everything that turns an encoder into the inspector of one product.

Stored as one .npz file: the arrays, and the other fields as JSON text in the entry `recipe`. No pickle.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import InputError, RecipeError

Arrays = dict[str, NDArray[Any]]
_FIELDS = "recipe"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Recipe:
    """A product to inspect.

    scorer: name in scorers.SCORERS. precision, graph_sha256, backend: what the features were computed with when it was
    fitted; a recipe is only used with the same precision and graph. threshold: on the normalised score; an image above
    it is anomalous. false_alarm: share of good images promised to be above it at most; false_alarm_note: how far the
    number of good images carries that promise. arrays: the head's graph inputs and the scorer's own arrays.
    calibration_scores: float32 [n], sorted normalised scores of good images that the model had not seen.
    """

    name: str
    scorer: str
    precision: str
    graph_sha256: str
    backend: str
    good_images: int
    group_sizes: tuple[int, ...]
    threshold: float
    false_alarm: float
    false_alarm_note: str
    seed: int
    created_with: str
    arrays: Arrays
    calibration_scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        check_name(self.name)


def check_name(name: str) -> str:
    """The name itself when it can be a file name. Raises InputError otherwise."""
    if not _NAME.fullmatch(name):
        raise InputError(f"recipe name {name!r}: use up to 64 letters, digits, dots, dashes and underscores")
    return name


def to_bytes(recipe: Recipe) -> bytes:
    """The .npz file of a recipe."""
    fields = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe)}
    arrays, calibration = fields.pop("arrays"), fields.pop("calibration_scores")
    text = json.dumps(fields | {"arrays": sorted(arrays)}, sort_keys=True, allow_nan=False)
    file = io.BytesIO()
    entries: dict[str, Any] = {f"array.{name}": array for name, array in arrays.items()}
    if any(array.dtype.hasobject for array in entries.values()):
        raise RecipeError(f"recipe {recipe.name!r} holds an array of Python objects, which only pickle could store")
    entries |= {_FIELDS: np.frombuffer(text.encode(), np.uint8), "calibration": calibration}
    np.savez(file, **entries)
    return file.getvalue()


def from_bytes(content: bytes, where: str) -> Recipe:
    """Read a recipe's .npz file. Raises RecipeError when it is damaged or not a recipe."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as entries:
            fields = json.loads(bytes(entries[_FIELDS]))
            # Each array is under a checksum, but one damaged byte in a zip file's directory can hide an entry.
            names = [name[len("array.") :] for name in entries.files if name.startswith("array.")]
            if sorted(names) != fields["arrays"]:
                raise ValueError("an array is missing")
            fields["group_sizes"] = tuple(fields["group_sizes"])
            fields["calibration_scores"] = entries["calibration"]
            fields["arrays"] = {name: entries[f"array.{name}"] for name in names}
        return Recipe(**fields)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RecipeError(f"{where}: damaged or not a recipe ({reason}); fit it again") from error
