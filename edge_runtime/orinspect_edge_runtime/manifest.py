"""manifest.json: what a bundle is, and the digest of every file in it.

The file is its own canonical serialisation: sorted keys, two-space indent, and a `digest` field that is the sha256 of
the rest. One flipped byte anywhere in it, white space included, is therefore an error.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Any

from orinspect_edge_runtime.errors import BundleError, ConfigError
from orinspect_edge_runtime.preprocess import PreprocessSpec

FORMAT_VERSION = 1


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph. A dimension is a number, or a name when it is free ("batch", "bank_rows")."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class EncoderSpec:
    """The encoder inside the graphs.

    name: of the timm model. init: `imagenet`, `scratch` or a file. mean, std: of the normalisation in the graph, for
    pixels in 0..1, per RGB channel. grid: (rows, columns) of patches. patch_dim, embedding_dim: lengths of a patch
    feature and of the image embedding. layers: the feature stages the patches are made of. adapted: False when the
    encoder is the initial one because pretraining did not help.
    """

    name: str
    init: str
    method: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layers: tuple[int, ...]
    grid: tuple[int, int]
    patch_dim: int
    embedding_dim: int
    adapted: bool = True


@dataclass(frozen=True)
class GraphSpec:
    """One ONNX file: the encoder in one precision, fused with one head (see heads.py)."""

    precision: str
    head: str
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class FileEntry:
    """Digest (hex) and size of one file of the bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """Everything about a bundle but its arrays. `files` is keyed by the path inside the bundle, with `/`."""

    created_with: str
    encoder: EncoderSpec
    preprocess: PreprocessSpec
    graphs: tuple[GraphSpec, ...]
    files: dict[str, FileEntry]
    recipes: dict[str, str] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def graph(self, precision: str, head: str) -> GraphSpec:
        """The graph of that precision and head. Raises BundleError naming what the bundle has."""
        for graph in self.graphs:
            if (graph.precision, graph.head) == (precision, head):
                return graph
        have = ", ".join(f"{g.precision} {g.head}" for g in self.graphs)
        raise BundleError(f"the bundle has no {precision} graph with the head {head!r} (it has: {have})")

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions of the graphs, in the order they were exported."""
        return tuple(dict.fromkeys(graph.precision for graph in self.graphs))


def to_bytes(manifest: Manifest) -> bytes:
    """The canonical serialisation, with its digest."""
    body = dataclasses.asdict(manifest)
    body["digest"] = _digest(body)
    return (json.dumps(body, sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False) + "\n").encode()


def from_bytes(content: bytes, where: str) -> Manifest:
    """Read and verify a manifest. `where` names the file in messages.

    Raises BundleError: not JSON, a newer format version, a missing or unknown field, or a changed byte.
    """
    try:
        body = json.loads(content)
        version = body["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{where}: damaged or not a bundle's manifest; copy the bundle again") from error
    if type(version) is not int or version < 1:
        raise BundleError(f"{where}: format version {version!r} is not known; copy the bundle again")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{where}: format version {version}, but this orinspect reads up to {FORMAT_VERSION}; "
            "run  pip install --upgrade orinspect"
        )
    digest = body.pop("digest", None)
    try:
        manifest: Manifest = _build(Manifest, body)
        is_intact = digest == _digest(body) and to_bytes(manifest) == content
    except (TypeError, ValueError, KeyError, RecursionError, ConfigError) as error:
        raise BundleError(f"{where}: damaged ({error}); copy the bundle again") from error
    if not is_intact:
        raise BundleError(f"{where}: its bytes were changed after it was written; copy the bundle again")
    return manifest


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def _build(kind: Any, value: Any) -> Any:
    """Make an object of the annotated type `kind` from parsed JSON. Raises TypeError or ValueError naming the field."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value)
    if origin is tuple:
        items = _expect(value, list)
        kinds = [arguments[0]] * len(items) if arguments[-1] is Ellipsis else list(arguments)
        return tuple(_build(k, item) for k, item in zip(kinds, items, strict=True))
    if origin is dict:
        return {_expect(k, str): _build(arguments[1], item) for k, item in _expect(value, dict).items()}
    if origin in (typing.Union, types.UnionType):
        return _expect(value, *arguments)
    if kind is float:
        # An int stays one: written as `0` it must be written as `0` again.
        return _expect(value, int, float)
    return _expect(value, kind)


def _build_dataclass(kind: Any, value: Any) -> Any:
    hints = typing.get_type_hints(kind)
    fields = _expect(value, dict)
    unknown = sorted(set(fields) - set(hints))
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r} of {kind.__name__}")
    return kind(**{name: _build(hints[name], item) for name, item in fields.items()})


def _expect(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise TypeError(f"expected {' or '.join(k.__name__ for k in kinds)}, found {type(value).__name__}")
    return value
