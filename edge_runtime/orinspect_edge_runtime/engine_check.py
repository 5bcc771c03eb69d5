"""Is the engine of a graph fit to run on this device, and does it reproduce golden here?"""

from __future__ import annotations

from dataclasses import dataclass

from orinspect_edge_runtime.backends.tensorrt import import_tensorrt
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.device import Device, this_device, with_library
from orinspect_edge_runtime.engine import checked_engine, engine_folder
from orinspect_edge_runtime.errors import OrinspectError
from orinspect_edge_runtime.golden import Arrays, replay
from orinspect_edge_runtime.manifest import GraphSpec


@dataclass(frozen=True)
class EngineCheck:
    """problem: one sentence with what differs and what mends it; None when the engine is right."""

    precision: str
    head: str
    problem: str | None


def check_engine(bundle: Bundle, spec: GraphSpec, golden: Arrays) -> EngineCheck | None:
    """Passport first, then golden through the engine; None when no engine was built for this graph."""
    if not engine_folder(bundle.path, spec).exists():
        return None
    return EngineCheck(spec.precision, spec.head, _problem(bundle, spec, golden))


def _problem(bundle: Bundle, spec: GraphSpec, golden: Arrays) -> str | None:
    try:
        here = _this_device()
        checked_engine(bundle.path, spec, bundle.manifest.files[spec.file].sha256, here)
        result = replay(bundle, spec, golden, backend="tensorrt")
    except OrinspectError as error:
        return str(error)
    if not result.passed:
        return (
            f"does not reproduce golden (embedding cosine {result.least_cosine:.5f}, score rank "
            f"{result.rank_correlation:.4f}): run  orinspect build {bundle.path}  again"
        )
    return None


def _this_device() -> Device:
    """With the TensorRT that would run the engine; a passport can be judged without any, as far as it goes."""
    try:
        return with_library(this_device(), import_tensorrt())
    except OrinspectError:
        return this_device()
