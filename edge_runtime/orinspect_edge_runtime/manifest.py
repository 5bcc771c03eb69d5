"""manifest.json: what a bundle is, and the digest of every file in it.

The file is its own canonical serialisation: sorted keys, two-space indent, and a `digest` field that is the sha256 of
the rest. One flipped byte anywhere in it, white space included, is therefore an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orinspect_edge_runtime.canonical import Document, decode, encode
from orinspect_edge_runtime.errors import BundleError
from orinspect_edge_runtime.preprocess import PreprocessSpec

FORMAT_VERSION = 1
_DOCUMENT = Document("a bundle's manifest", "copy the bundle again", FORMAT_VERSION, BundleError)
# Heads that not every bundle has.
HOW_TO_GET = {"student": ": train one with  orinspect student RUN IMAGES --out RUN2  and export RUN2"}


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
        hint = "" if head in {g.head for g in self.graphs} else HOW_TO_GET.get(head, "")
        raise BundleError(f"the bundle has no {precision} graph with the head {head!r} (it has: {have}){hint}")

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions of the graphs, in the order they were exported."""
        return tuple(dict.fromkeys(graph.precision for graph in self.graphs))


def to_bytes(manifest: Manifest) -> bytes:
    """The canonical serialisation, with its digest."""
    return encode(manifest)


def from_bytes(content: bytes, where: str) -> Manifest:
    """Read and verify a manifest. `where` names the file in messages.

    Raises BundleError: not JSON, a newer format version, a missing or unknown field, or a changed byte.
    """
    return decode(Manifest, content, where, _DOCUMENT)
