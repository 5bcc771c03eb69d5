"""manifest.json: what is written is read back equal, and nothing else is taken."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orinspect_edge_runtime.errors import BundleError
from orinspect_edge_runtime.manifest import (
    FORMAT_VERSION,
    EncoderSpec,
    FileEntry,
    GraphSpec,
    Manifest,
    TensorSpec,
    from_bytes,
    to_bytes,
)
from orinspect_edge_runtime.preprocess import PreprocessSpec

TEXT = st.text(max_size=12)
COUNT = st.integers(0, 2**53)
NUMBER = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**9), 10**9)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
TENSORS = st.lists(st.builds(TensorSpec, TEXT, TEXT, st.lists(COUNT | TEXT, max_size=4).map(tuple)), max_size=3).map(
    tuple
)
ENCODERS = st.builds(
    EncoderSpec,
    name=TEXT,
    init=TEXT,
    method=TEXT,
    mean=st.lists(NUMBER, max_size=4).map(tuple),
    std=st.lists(NUMBER, max_size=4).map(tuple),
    layers=st.lists(COUNT, max_size=4).map(tuple),
    grid=st.tuples(COUNT, COUNT),
    patch_dim=COUNT,
    embedding_dim=COUNT,
    adapted=st.booleans(),
)
SIDES = st.integers(32, 4096)
PREPROCESS = st.builds(PreprocessSpec, SIDES, SIDES, st.sampled_from(["stretch", "letterbox"]), st.integers(9, 16))
MANIFESTS = st.builds(
    Manifest,
    created_with=TEXT,
    encoder=ENCODERS,
    preprocess=PREPROCESS,
    graphs=st.lists(st.builds(GraphSpec, TEXT, TEXT, TEXT, TENSORS, TENSORS), max_size=3).map(tuple),
    files=st.dictionaries(TEXT, st.builds(FileEntry, st.text(string.hexdigits, max_size=64), COUNT), max_size=3),
    recipes=st.dictionaries(TEXT, TEXT, max_size=3),
    parity=st.dictionaries(TEXT, JSON, max_size=3),
)
SMALL = Manifest(
    created_with="orinspect 0.1.0",
    encoder=EncoderSpec("lite", "imagenet", "vicreg", (0.5, 0.5, 0.5), (0.5, 0.25, 1e-3), (2, 3), (12, 12), 152, 960),
    preprocess=PreprocessSpec(192, 224, "letterbox", 12),
    graphs=(GraphSpec("fp32", "padim", "graphs/ä.onnx", (TensorSpec("x", "uint8", ("batch", 192)),), ()),),
    files={"graphs/ä.onnx": FileEntry("00ff", 12)},
    recipes={"default": "recipes/default-00ff.npz"},
    parity={"fp16": {"cosine": 0.99987, "images": 8, "note": None}},
)
CONTENT = to_bytes(SMALL)


def signed(body: Any) -> bytes:
    """A file with these fields and a right digest: what an adversary, or a bug in a writer, could make."""
    body = {key: value for key, value in body.items() if key != "digest"}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
    return (json.dumps(body | {"digest": digest}, sort_keys=True, indent=2) + "\n").encode()


def refused(content: bytes, message: str = "copy the bundle again") -> None:
    with pytest.raises(BundleError, match=message) as caught:
        from_bytes(content, "place/manifest.json")
    assert str(caught.value).startswith("place/manifest.json: ")
    assert len(str(caught.value).splitlines()) == 1


@settings(max_examples=60)
@given(MANIFESTS)
def test_round_trip(manifest: Manifest) -> None:
    content = to_bytes(manifest)
    assert from_bytes(content, "x") == manifest
    assert to_bytes(from_bytes(content, "x")) == content
    assert content.isascii()


def test_helper_signs_as_the_writer_does() -> None:
    assert signed(json.loads(CONTENT)) == CONTENT


def test_every_flipped_byte_is_refused() -> None:
    for place in range(len(CONTENT)):
        for mask in (0x01, 0x80):
            with pytest.raises(BundleError):
                from_bytes(CONTENT[:place] + bytes([CONTENT[place] ^ mask]) + CONTENT[place + 1 :], "x")


def test_every_deleted_byte_and_every_cut_is_refused() -> None:
    for place in range(len(CONTENT)):
        for changed in (CONTENT[:place] + CONTENT[place + 1 :], CONTENT[:place]):
            with pytest.raises(BundleError):
                from_bytes(changed, "x")


@pytest.mark.parametrize("inserted", [b" ", b"0", b'"', b"\xff"])
def test_every_inserted_byte_is_refused(inserted: bytes) -> None:
    for place in range(len(CONTENT) + 1):
        with pytest.raises(BundleError):
            from_bytes(CONTENT[:place] + inserted + CONTENT[place:], "x")


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | JSON.map(lambda v: json.dumps(v).encode()))
def test_anything_else_is_refused(content: bytes) -> None:
    refused(content)


@given(st.dictionaries(st.sampled_from(list(json.loads(CONTENT))), JSON, min_size=1, max_size=3))
@settings(max_examples=100)
def test_signed_nonsense_is_refused_or_round_trips(changes: dict[str, Any]) -> None:
    content = signed(json.loads(CONTENT) | changes)
    try:
        manifest = from_bytes(content, "x")
    except BundleError:
        return
    assert to_bytes(manifest) == content


@pytest.mark.parametrize("bom", ["utf-8-sig", "utf-16", "utf-32"])
def test_other_encodings_are_refused(bom: str) -> None:
    refused(CONTENT.decode().encode(bom))


def test_a_newer_format_says_how_to_upgrade() -> None:
    body = json.loads(CONTENT) | {"format_version": FORMAT_VERSION + 1, "field_of_the_future": {}}
    refused(signed(body), f"format version {FORMAT_VERSION + 1}, but .* up to {FORMAT_VERSION}; run  pip install")


@pytest.mark.parametrize("version", [0, -1, 1.0, True, "1", None, [], {}, 10**30])
def test_an_odd_format_version_is_refused(version: Any) -> None:
    refused(signed(json.loads(CONTENT) | {"format_version": version}), "format version")


PATHS = [
    (),
    ("encoder",),
    ("preprocess",),
    ("graphs", 0),
    ("graphs", 0, "inputs", 0),
    ("files", "graphs/ä.onnx"),
]


def at(body: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        body = body[key]
    return body


@pytest.mark.parametrize("path", PATHS)
def test_an_unknown_field_is_named(path: tuple[Any, ...]) -> None:
    body = json.loads(CONTENT)
    at(body, path)["surprise"] = 1
    refused(signed(body), "unknown field 'surprise'")


@pytest.mark.parametrize("path", PATHS)
def test_every_missing_field_is_refused(path: tuple[Any, ...]) -> None:
    for name in at(json.loads(CONTENT), path):
        body = json.loads(CONTENT)
        del at(body, path)[name]
        refused(signed(body) if name != "digest" else json.dumps(body).encode())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", [None, True, 1, 1.5, "text", [], {}, [[]], [1, 2, 3]])
def test_every_field_of_another_type_is_refused(path: tuple[Any, ...], value: Any) -> None:
    for name, old in at(json.loads(CONTENT), path).items():
        if name in ("digest", "parity") or type(old) is type(value):
            continue
        body = json.loads(CONTENT)
        at(body, path)[name] = value
        refused(signed(body))


@pytest.mark.parametrize("values", [{"resize": "crop"}, {"bit_depth": 8}, {"height": 1}, {"width": 10**9}])
def test_a_preprocessing_out_of_range_is_a_damaged_bundle(values: dict[str, Any]) -> None:
    body = json.loads(CONTENT)
    body["preprocess"] |= values
    refused(signed(body), "damaged")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "1E400"])
def test_numbers_that_json_does_not_have(number: str) -> None:
    for field in ("parity", "mean"):
        body = json.loads(CONTENT)
        if field == "parity":
            body["parity"] = {"value": "#"}
        else:
            body["encoder"]["mean"] = ["#"]
        text = json.dumps(body, sort_keys=True, indent=2).replace('"#"', number)
        refused((text + "\n").encode())
        if len(number) < 100:
            # The same with a right digest.
            value = float(number)
            body["parity"] = {"value": value} if field == "parity" else {}
            body["encoder"]["mean"] = [value] if field == "mean" else []
            refused(signed(body))


def test_whole_numbers_may_stand_for_floats() -> None:
    encoder = dataclasses.replace(SMALL.encoder, mean=(0, 0, 0), std=(1, 1, 10**400))
    manifest = dataclasses.replace(SMALL, encoder=encoder)
    assert from_bytes(to_bytes(manifest), "x") == manifest


def test_duplicate_keys_are_refused() -> None:
    text = CONTENT.decode()
    for line in text.splitlines():
        if line.startswith('  "') and line.endswith(","):
            refused(text.replace(line, f"{line}\n{line}").encode())


@pytest.mark.parametrize("depth", [100, 900, 1200, 50_000])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_deep_nesting_never_ends_in_another_error(depth: int, brackets: str) -> None:
    opened = "[" if brackets == "[]" else '{"a":'
    deep = opened * depth + "1" + brackets[1] * depth
    refused(deep.encode())
    body = json.dumps(json.loads(CONTENT) | {"parity": {"value": "#"}}, sort_keys=True, indent=2)
    refused(body.replace('"#"', deep).encode())


def test_graphs_and_precisions_are_found_by_name() -> None:
    def graph(precision: str, head: str) -> GraphSpec:
        return GraphSpec(precision, head, f"{head}-{precision}", (), ())

    graphs = tuple(graph(p, h) for p in ("int8", "fp32") for h in ("padim", "patchcore"))
    manifest = dataclasses.replace(SMALL, graphs=graphs)
    assert manifest.precisions == ("int8", "fp32")
    assert manifest.graph("fp32", "padim").file == "padim-fp32"
    with pytest.raises(
        BundleError, match=r"no fp16 graph with the head 'padim'.*int8 padim, int8 patchcore, fp32 padim"
    ):
        manifest.graph("fp16", "padim")


def test_nan_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        to_bytes(dataclasses.replace(SMALL, parity={"value": float("nan")}))
