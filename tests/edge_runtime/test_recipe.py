"""Recipe files: what is written is read back equal; anything damaged, and any pickle, is refused."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from orinspect_edge_runtime.alignment import Align
from orinspect_edge_runtime.bank_rule import GRAPHS_RULE, BankRule
from orinspect_edge_runtime.defect_threshold import Stakes
from orinspect_edge_runtime.errors import InputError, RecipeError
from orinspect_edge_runtime.recipe import Edit, Recipe, check_name, from_bytes, in_force, to_bytes
from orinspect_edge_runtime.threshold import conformal_threshold
from orinspect_edge_runtime.tiling import Tiles

TEXT = st.text(max_size=12)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
ARRAYS = st.dictionaries(
    st.from_regex(r"[a-z_]{1,9}", fullmatch=True),
    arrays_of.arrays(
        st.sampled_from([np.float32, np.int32, np.uint8, np.bool_]),
        arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    max_size=4,
)
EDITS = st.builds(
    Edit,
    number=st.integers(1, 99),
    kind=st.sampled_from(["add", "forget", "undo"]),
    image=TEXT,
    at=TEXT,
    note=TEXT,
    rows_added=st.integers(0, 99),
    rows_removed=st.integers(0, 99),
    score_before=st.none() | FINITE,
    score_after=st.none() | FINITE,
    threshold_before=FINITE,
    threshold_after=FINITE,
    message=TEXT,
    before=TEXT,
)
RECIPES = st.builds(
    Recipe,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    scorer=TEXT,
    precision=TEXT,
    graph_sha256=TEXT,
    backend=TEXT,
    good_images=st.integers(),
    group_sizes=st.lists(st.integers(0, 999), max_size=3).map(tuple),
    threshold=FINITE,
    false_alarm=FINITE,
    false_alarm_note=TEXT,
    seed=st.integers(0, 2**32),
    created_with=TEXT,
    arrays=ARRAYS,
    calibration_scores=arrays_of.arrays(np.float32, st.integers(0, 5), elements=st.floats(width=32)),
    images=st.lists(TEXT, max_size=3).map(tuple),
    calibration_images=arrays_of.arrays(np.int32, st.integers(0, 5)),
    edits=st.lists(EDITS, max_size=3).map(tuple),
    defects=st.lists(TEXT, max_size=3).map(tuple),
    defect_scores=arrays_of.arrays(np.float32, st.integers(0, 5), elements=st.floats(width=32)),
    stakes=st.none() | st.builds(Stakes, st.floats(0.1, 9), st.just(1.0), st.floats(0.01, 0.9)) | st.just(Stakes()),
    tiles=st.none() | st.builds(Tiles, st.integers(1, 4), st.integers(2, 4)),
    align=st.none() | st.builds(Align, st.floats(0, 180)),
)


SCORES = ("calibration_scores", "calibration_images", "defect_scores")


def assert_equal(a: Recipe, b: Recipe) -> None:
    """Every field, arrays with their types and bytes (so that NaN equals itself)."""
    for field in dataclasses.fields(Recipe):
        if field.name not in ("arrays", *SCORES):
            assert getattr(a, field.name) == getattr(b, field.name), field.name
    assert set(a.arrays) == set(b.arrays)
    pairs = [(a.arrays[name], b.arrays[name]) for name in a.arrays] + [
        (getattr(a, name), getattr(b, name)) for name in SCORES
    ]
    for x, y in pairs:
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())


def refused(content: bytes) -> None:
    with pytest.raises(RecipeError, match=r"damaged or not a recipe .*; fit it again") as caught:
        from_bytes(content, "place/x.npz")
    assert str(caught.value).startswith("place/x.npz: ")
    assert len(str(caught.value).splitlines()) == 1


@settings(max_examples=60)
@given(RECIPES)
def test_round_trip(recipe: Recipe) -> None:
    content = to_bytes(recipe)
    assert_equal(from_bytes(content, "x"), recipe)
    assert to_bytes(recipe) == content, "equal recipes have equal digests"


@pytest.fixture
def small(tiny_recipe: Callable[..., Recipe]) -> Recipe:
    edit = Edit(1, "add", "b", "2026", "", 1, 0, 2.0, None, 1.5, 1.5, "", "recipes/old.npz")
    arrays = {"bank": np.arange(6, dtype=np.float32).reshape(2, 3), "origin": np.array([3, 1])}
    return tiny_recipe(arrays=arrays, images=("a", "b"), edits=(edit,), calibration_images=np.array([1, 0], np.int32))


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_flipped_byte_is_refused_or_changes_nothing(small: Recipe, mask: int) -> None:
    """Dates and the like in the zip file's directory carry no meaning; all else is under a checksum."""
    content, harmless = to_bytes(small), 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for place in range(len(content)):
            changed = content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :]
            try:
                read = from_bytes(changed, "x")
            except RecipeError as error:
                assert len(str(error).splitlines()) == 1
            else:
                harmless += 1
                assert_equal(read, small)
    assert harmless < len(content) / 4


def test_every_cut_is_refused(small: Recipe) -> None:
    content = to_bytes(small)
    for length in range(len(content)):
        with pytest.raises(RecipeError):
            from_bytes(content[:length], "x")


@given(st.binary(max_size=80))
def test_other_bytes_are_refused(content: bytes) -> None:
    refused(content)
    refused(b"PK\3\4" + content)


def entries_of(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content)) as entries:
        return {name: entries[name] for name in entries.files}


def file_of(entries: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **entries)
    return file.getvalue()


def with_fields(small: Recipe, **fields: Any) -> bytes:
    entries = entries_of(to_bytes(small))
    text = json.dumps(json.loads(bytes(entries["recipe"])) | fields)
    return file_of(entries | {"recipe": np.frombuffer(text.encode(), np.uint8)})


class Bomb:
    """Unpickled, it would call its function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was read",))


@pytest.mark.parametrize("entry", ["recipe", "calibration", "array.bank", "array.extra"])
def test_pickles_are_never_read(small: Recipe, entry: str) -> None:
    refused(file_of(entries_of(to_bytes(small)) | {entry: np.array([Bomb()], object)}))
    refused(pickle.dumps(Bomb()))


def test_pickles_are_never_written(small: Recipe) -> None:
    with pytest.raises(RecipeError, match="Python objects"):
        to_bytes(dataclasses.replace(small, arrays={"x": np.array([{}], object)}))


@pytest.mark.parametrize("entry", ["recipe", "calibration", "defect_scores", "array.bank"])
def test_a_missing_entry_is_refused(small: Recipe, entry: str) -> None:
    entries = entries_of(to_bytes(small))
    del entries[entry]
    refused(file_of(entries))


def test_a_missing_or_unknown_field_is_refused(small: Recipe) -> None:
    refused(with_fields(small, surprise=1))
    entries = entries_of(to_bytes(small))
    fields = json.loads(bytes(entries["recipe"]))
    for name in fields:
        text = json.dumps({key: value for key, value in fields.items() if key != name})
        refused(file_of(entries | {"recipe": np.frombuffer(text.encode(), np.uint8)}))


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000])
def test_other_text_than_fields_is_refused(small: Recipe, text: bytes) -> None:
    refused(file_of(entries_of(to_bytes(small)) | {"recipe": np.frombuffer(text, np.uint8)}))


def test_a_huge_array_that_is_not_there_is_refused(small: Recipe) -> None:
    """The shape in an array's header is not believed."""
    source, file = zipfile.ZipFile(io.BytesIO(to_bytes(small))), io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "array.bank.npy":
                header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 3), }".ljust(117) + b"\n"
                content = b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header
            target.writestr(name, content)
    refused(file.getvalue())


def test_a_single_array_is_refused() -> None:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    refused(file.getvalue())


GOOD_NAMES = ["default", "a", "A-1_b.c", "0", "x" * 64]
BAD_NAMES = ["", ".", "..", ".hidden", "-x", "_x", "a/b", "../a", "a b", "ä", "a\n", "a\0", "x" * 65, "a\\b", "${HOME}"]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_good_names(tiny_recipe: Callable[..., Recipe], name: str) -> None:
    assert check_name(name) == name
    assert from_bytes(to_bytes(tiny_recipe(name)), "x").name == name


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names(small: Recipe, tiny_recipe: Callable[..., Recipe], name: str) -> None:
    with pytest.raises(InputError, match="recipe name"):
        check_name(name)
    with pytest.raises(InputError, match="recipe name"):
        tiny_recipe(name)
    refused(with_fields(small, name=name))


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_a_threshold_that_is_no_number_is_not_written(tiny_recipe: Callable[..., Recipe], threshold: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        to_bytes(tiny_recipe(threshold=threshold))


def test_a_recipe_of_format_1_is_read() -> None:
    """Written by the release before names of images and edits were kept."""
    old = from_bytes((Path(__file__).parents[1] / "data/recipes/format-1.npz").read_bytes(), "old")
    assert (old.name, old.good_images, old.threshold) == ("old", 2, 1.5)
    assert old.images == ("image 0", "image 1")
    assert old.edits == () and len(old.calibration_images) == 0
    assert old.arrays["bank"].shape == (5, 32)
    assert_equal(from_bytes(to_bytes(old), "x"), old)


def test_a_recipe_of_format_2_is_read() -> None:
    """Written by the release before a threshold could be found by defects."""
    old = from_bytes((Path(__file__).parents[1] / "data/recipes/format-2.npz").read_bytes(), "old")
    assert (old.images, old.edits[0].note) == (("good/0.png", "good/1.png"), "a reflection")
    assert (old.review_threshold, old.review_alarm, old.threshold_rule) == (0.5, 0.4, "conformal")
    assert old.calibration_images.tolist() == [1, 0]
    assert (old.defects, len(old.defect_scores), old.stakes) == ((), 0, None)
    assert_equal(from_bytes(to_bytes(old), "x"), old)


def test_a_recipe_of_format_3_is_read() -> None:
    """Written by the release before parts were brought to one place."""
    old = from_bytes((Path(__file__).parents[1] / "data/recipes/format-3.npz").read_bytes(), "old")
    assert (old.defects, old.defect_scores.tolist(), old.threshold_rule) == (("bad/0.png",), [4.0], "f1")
    assert (old.tiles, old.align) == (Tiles(3, 2), None) and old.stakes is not None
    assert_equal(from_bytes(to_bytes(old), "x"), old)


def test_a_recipe_of_format_4_is_read() -> None:
    """Written by the release before banks had rules of their own."""
    old = from_bytes((Path(__file__).parents[1] / "data/recipes/format-4.npz").read_bytes(), "old")
    assert (old.images, old.align) == (("good/0.png", "good/1.png"), Align(10.0))
    assert BankRule.of(old.arrays) == GRAPHS_RULE
    assert_equal(from_bytes(to_bytes(old), "x"), old)


@pytest.mark.parametrize(
    ("version", "field"), [(1, "images"), (1, "stakes"), (2, "stakes"), (2, "defects"), (3, "align")]
)
def test_a_field_from_the_future_is_refused(version: int, field: str) -> None:
    entries = entries_of((Path(__file__).parents[1] / f"data/recipes/format-{version}.npz").read_bytes())
    text = json.dumps(json.loads(bytes(entries["recipe"])) | {field: None})
    refused(file_of(entries | {"recipe": np.frombuffer(text.encode(), np.uint8)}))


def test_a_newer_format_asks_for_an_upgrade(small: Recipe) -> None:
    with pytest.raises(RecipeError, match="format 6, this orinspect reads up to 5: upgrade orinspect"):
        from_bytes(with_fields(small, format=6), "x")


def test_undo_takes_back_the_last_edit_that_stands() -> None:
    def log(kinds: str) -> tuple[Edit, ...]:
        names = {"a": "add", "f": "forget", "u": "undo"}
        return tuple(Edit(n, names[k], "", "", "", 0, 0, None, None, 0, 0, "", "") for n, k in enumerate(kinds, 1))

    for kinds, standing in (("", []), ("af", [1, 2]), ("afu", [1]), ("afuu", []), ("aufa", [3, 4]), ("afuauu", [])):
        assert [edit.number for edit in in_force(log(kinds))] == standing, kinds


@pytest.mark.parametrize(("images", "promised"), [(3, 0.25), (40, 1 / 41), (99, 0.01), (500, 0.01)])
def test_few_images_promise_less_than_was_asked(
    images: int, promised: float, tiny_recipe: Callable[..., Recipe]
) -> None:
    scores = np.zeros(images, np.float32)
    recipe = tiny_recipe(false_alarm=0.01, calibration_scores=scores)
    assert recipe.promised_false_alarm == pytest.approx(promised)
    assert recipe.promised_false_alarm >= conformal_threshold(scores, 0.01).false_alarm_promised - 1e-12
