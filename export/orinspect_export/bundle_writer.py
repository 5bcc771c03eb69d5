"""Write a bundle: all of it under its name, or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orinspect_edge_runtime import durable
from orinspect_edge_runtime import manifest as manifests
from orinspect_edge_runtime.bundle import GOLDEN, MANIFEST
from orinspect_edge_runtime.manifest import EncoderSpec, FileEntry, Manifest
from orinspect_edge_runtime.preprocess import PreprocessSpec
from orinspect_export.head_graph import graph_spec

PAGE = "precisions.html"


def write_bundle(
    out: Path,
    encoder: EncoderSpec,
    preprocess: PreprocessSpec,
    *,
    graphs: dict[tuple[str, str], bytes],
    golden: bytes,
    parity: dict[str, Any],
    created_with: str,
    page: bytes = b"",
    beside: Mapping[str, bytes] | None = None,
    replace: bool = False,
    verify: Callable[[Path], None] | None = None,
) -> Manifest:
    """Publish the bundle `out` and return its manifest.

    graphs: ONNX bytes by (head, precision). page: HTML for people, beside them. beside: further files, by name. verify:
    called with the finished folder before it gets its name; what it raises stops the publication. Raises InputError:
    `out` exists and `replace` is False, or the disk refuses.
    """
    specs = {key: graph_spec(*key, encoder, preprocess) for key in graphs}
    contents = {specs[key].file: content for key, content in graphs.items()} | {GOLDEN: golden, **(beside or {})}
    if page:
        contents[PAGE] = page
    files = {name: FileEntry(hashlib.sha256(content).hexdigest(), len(content)) for name, content in contents.items()}
    manifest = Manifest(created_with, encoder, preprocess, tuple(specs.values()), files, parity=parity)
    with durable.new_folder(out, replace=replace) as folder:
        for name, content in contents.items():
            durable.write_bytes(folder / name, content)
        durable.write_bytes(folder / MANIFEST, manifests.to_bytes(manifest))
        if verify is not None:
            verify(folder)
    return manifest
