"""A recipe: everything that turns an encoder into the inspector of one product.

Stored as one .npz file: the arrays, and the other fields as JSON text in the entry `recipe`. No pickle. Format 2 added
the images' names, whose calibration score is whose, and the edits; a file of format 1 is read with names made up.
Format 3 added the defects that a threshold was found by, and tiles; format 4 where parts lie (align); format 5 the array
`bank_rule` (bank_rule.py), which an older reader would not obey.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime import array_file
from orinspect_edge_runtime.alignment import Align, Aligner
from orinspect_edge_runtime.defect_threshold import Stakes
from orinspect_edge_runtime.errors import InputError, RecipeError
from orinspect_edge_runtime.tiling import Tiles

Arrays = dict[str, NDArray[Any]]
FORMAT = 5
# Formats in which fields came: older files lack them.
_SINCE = (
    dict.fromkeys(("images", "edits", "calibration_images", "review_threshold", "review_alarm", "threshold_rule"), 2)
    | dict.fromkeys(("defects", "defect_scores", "stakes", "tiles"), 3)
    | {"align": 4}
)
_FIELDS = "recipe"
# Entries of the file that are no arrays of the scorer or the head, by the field's name.
_OWN_ARRAYS = {
    "calibration_scores": "calibration",
    "calibration_images": "calibration_images",
    "defect_scores": "defect_scores",
}
# Fields that are a record of their own, or None.
_PARTS: dict[str, Any] = {"stakes": Stakes, "tiles": Tiles, "align": Align}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Edit:
    """One change of a recipe since it was fitted (see recipe_edit.py).

    number: 1, 2, ... kind: `add`, `forget`, `threshold` or `undo`. image: its name in Recipe.images, empty of a
    threshold; of an undo, that of what it took back. at: UTC, ISO 8601. note: the user's words. score_before,
    score_after: of an added image. message: what happened, and what did not, in a sentence. before: the bundle's file of
    the recipe as it was, for undo.
    """

    number: int
    kind: str
    image: str
    at: str
    note: str
    rows_added: int
    rows_removed: int
    score_before: float | None
    score_after: float | None
    threshold_before: float
    threshold_after: float
    message: str
    before: str


@dataclass(frozen=True)
class Recipe:
    """A product to inspect.

    scorer: name in scorers.SCORERS. precision, graph_sha256, backend: what the features were computed with when it was
    fitted; a recipe is only used with the same precision and graph. threshold: on the normalised score; an image above
    it is anomalous. false_alarm: share of good images asked to be above it at most; false_alarm_note: how far the
    number of good images carries that promise. arrays: the head's graph inputs and the scorer's own arrays.
    calibration_scores: float32 [n], sorted normalised scores of good images that the model had not seen.
    images: name of every good image; rows of the arrays say by its number here where they come from. A forgotten one is
    an empty text. calibration_images: int32 [n], number of the image of each calibration score; empty when not known.
    edits: what was changed since the fit, oldest first.
    review_threshold: an image above it that is not anomalous should be looked at by a person, None for no such band;
    review_alarm: share of good images promised to be above it at most. threshold_rule: how both were found, a name of
    threshold.THRESHOLDS, or with defects `f1` or `cost`: the review threshold is then a conformal one, and false_alarm is
    only what is asked for where there are no defects.
    defects: names of defective images; defect_scores: float32 [m], the score of each, at least; stakes: what the
    threshold weighs, None when it was not found by defects. The arrays `defect_embedding` and `defect_patches` are what
    it takes to score them again (recipe_threshold.py). A recipe with a region mask has the arrays `mask`, bool [height,
    width] at the model's size, and `inspected`, bool [P], the patches that count. The array `image_groups`, int32, holds
    the group of each of the images. tiles: None when the picture is seen as a whole; else a bank's rows come from the
    patches of all tiles (tiling.py), and the map is that of the mosaic. align: None when
    pictures are taken as they come; else each is turned and shifted first, so that the part lies as in the array
    `align_reference`, float32 [h, w] (alignment.py).
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
    images: tuple[str, ...] = ()
    calibration_images: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    edits: tuple[Edit, ...] = ()
    review_threshold: float | None = None
    review_alarm: float | None = None
    threshold_rule: str = "conformal"
    defects: tuple[str, ...] = ()
    defect_scores: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    stakes: Stakes | None = None
    tiles: Tiles | None = None
    align: Align | None = None

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def promised_false_alarm(self) -> float:
        """The rate that its good images can promise: the one asked for, or with too few images 1 / (their number + 1).

        Of a threshold found by defects, which promises nothing: the one that its rank among the good images stands for.
        """
        if self.stakes is not None:
            above = int((self.calibration_scores.astype(np.float64) > self.threshold).sum())
            return (above + 1) / (len(self.calibration_scores) + 1)
        return max(self.false_alarm, 1 / (len(self.calibration_scores) + 1))


def check_name(name: str) -> str:
    """The name itself when it can be a file name. Raises InputError otherwise."""
    if not _NAME.fullmatch(name):
        raise InputError(f"recipe name {name!r}: use up to 64 letters, digits, dots, dashes and underscores")
    return name


def aligner_of(recipe: Recipe) -> Aligner | None:
    """What brings the parts of a recipe to their place; None when it takes pictures as they come. Raises RecipeError."""
    if recipe.align is None:
        return None
    if "align_reference" not in recipe.arrays:
        raise RecipeError(f"recipe {recipe.name!r} lacks align_reference; fit it again")
    return Aligner(recipe.align, recipe.arrays["align_reference"])


def in_force(edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
    """The edits that no undo has taken back, oldest first."""
    stack: list[Edit] = []
    for edit in edits:
        if edit.kind != "undo":
            stack.append(edit)
        elif stack:
            stack.pop()
    return tuple(stack)


def to_bytes(recipe: Recipe) -> bytes:
    """The .npz file of a recipe."""
    fields = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe)}
    arrays, own = fields.pop("arrays"), {entry: fields.pop(name) for name, entry in _OWN_ARRAYS.items()}
    fields |= {"arrays": sorted(arrays), "edits": [vars(edit) for edit in recipe.edits], "format": FORMAT}
    fields |= {name: vars(fields[name]) for name in _PARTS if fields[name] is not None}
    text = json.dumps(fields, sort_keys=True, allow_nan=False)
    entries: dict[str, Any] = {f"array.{name}": array for name, array in arrays.items()}
    if any(array.dtype.hasobject for array in entries.values()):
        raise RecipeError(f"recipe {recipe.name!r} holds an array of Python objects, which only pickle could store")
    return array_file.to_bytes(entries | {_FIELDS: np.frombuffer(text.encode(), np.uint8)} | own)


def from_bytes(content: bytes, where: str) -> Recipe:
    """Read a recipe's .npz file. Raises RecipeError when it is damaged, not a recipe, or of a newer format."""
    try:
        entries = array_file.from_bytes(content)
        fields = json.loads(bytes(entries[_FIELDS]))
        version = fields.pop("format", 1)
        if version <= FORMAT:
            return Recipe(**_of_entries(fields, entries, version))
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RecipeError(f"{where}: damaged or not a recipe ({reason}); fit it again") from error
    raise RecipeError(f"{where}: a recipe of format {version}, this orinspect reads up to {FORMAT}: upgrade orinspect")


def _of_entries(fields: dict[str, Any], entries: Arrays, version: int) -> dict[str, Any]:
    """The fields of a Recipe out of its JSON text and the file's entries."""
    # Each array is under a checksum, but one damaged byte in a zip file's directory can hide an entry.
    names = [name[len("array.") :] for name in entries if name.startswith("array.")]
    if sorted(names) != fields["arrays"]:
        raise ValueError("an array is missing")
    own = _OWN_ARRAYS.items()
    fields |= {name: entries[entry] for name, entry in own if version >= _SINCE.get(name, 1)}
    if version < FORMAT:
        fields |= _made_up(fields, version)
    fields["arrays"] = {name: entries[f"array.{name}"] for name in names}
    fields["edits"] = tuple(Edit(**edit) for edit in fields["edits"])
    fields |= {name: tuple(fields[name]) for name in ("group_sizes", "images", "defects")}
    fields |= {name: made(**fields[name]) for name, made in _PARTS.items() if fields[name] is not None}
    if set(fields) != {f.name for f in dataclasses.fields(Recipe)}:
        raise ValueError("a field is missing or unknown")
    return fields


def _made_up(fields: dict[str, Any], version: int) -> dict[str, Any]:
    """What the file's format did not store yet."""
    made: dict[str, Any] = {
        "images": [f"image {number}" for number in range(fields["good_images"])],
        "edits": [],
        "review_threshold": None,
        "review_alarm": None,
        "threshold_rule": "conformal",
        "calibration_images": np.zeros(0, np.int32),
        "defects": [],
        "defect_scores": np.zeros(0, np.float32),
        "stakes": None,
        "tiles": None,
        "align": None,
    }
    missing = {name: value for name, value in made.items() if _SINCE[name] > version}
    if set(missing) & set(fields):
        raise ValueError(f"a field that format {version} does not have")
    return missing
