"""Engines of a bundle on disk: BUNDLE/engines/HEAD-PRECISION/ holds the plan, its passport and its layer report.

An engine is published as a whole folder, so a plan never lies beside the passport of another one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orinspect_edge_runtime import durable
from orinspect_edge_runtime import passport as passports
from orinspect_edge_runtime.device import Device
from orinspect_edge_runtime.errors import BundleError
from orinspect_edge_runtime.manifest import GraphSpec
from orinspect_edge_runtime.passport import EnginePassport

ENGINES = "engines"
PLAN, PASSPORT, LAYERS = "engine.plan", "passport.json", "layers.json"


@dataclass(frozen=True)
class Engine:
    """An engine file with its passport. The plan is only bytes here: nothing of it was deserialised."""

    folder: Path
    plan: bytes
    passport: EnginePassport


def engine_folder(bundle: Path, spec: GraphSpec) -> Path:
    """Where the engine of one graph lies."""
    return bundle / ENGINES / f"{spec.head}-{spec.precision}"


def read_engine(bundle: Path, spec: GraphSpec) -> Engine | None:
    """The engine of one graph, not yet checked against anything; None when none was built.

    Raises BundleError: its passport is damaged, or a file is missing.
    """
    folder = engine_folder(bundle, spec)
    if not folder.exists():
        return None
    try:
        content, plan = (folder / PASSPORT).read_bytes(), (folder / PLAN).read_bytes()
    except OSError as error:
        raise BundleError(f"{error.filename}: {error.strerror}; run  orinspect build {bundle}  again") from error
    return Engine(folder, plan, passports.from_bytes(content, str(folder / PASSPORT)))


def checked_engine(bundle: Path, spec: GraphSpec, onnx_sha256: str, here: Device) -> Engine | None:
    """The engine of one graph, fit to run here; None when none was built. Raises CheckFailed naming what differs."""
    engine = read_engine(bundle, spec)
    if engine is not None:
        passports.require(engine.passport, here, engine.plan, onnx_sha256, str(bundle))
    return engine


@contextlib.contextmanager
def new_engine(bundle: Path, spec: GraphSpec) -> Iterator[Path]:
    """A folder to fill; it replaces the engine of that graph when the block ends, and vanishes when it fails."""
    with durable.new_folder(engine_folder(bundle, spec), replace=True) as folder:
        yield folder
