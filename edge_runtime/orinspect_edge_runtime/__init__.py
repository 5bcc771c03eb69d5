"""The on-device half of orinspect: bundles, recipes, backends, verdicts. Needs numpy, Pillow and one backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orinspect_edge_runtime.bundle import Bundle as Bundle
    from orinspect_edge_runtime.detector import Detector as Detector
    from orinspect_edge_runtime.preprocess import Frame as Frame
    from orinspect_edge_runtime.verdict import Verdict as Verdict

_HOME = {"Bundle": "bundle", "Detector": "detector", "Verdict": "verdict", "Frame": "preprocess"}
__all__ = ["Bundle", "Detector", "Frame", "Verdict"]


def __getattr__(name: str) -> Any:
    """Load the public names when they are first used, so that importing a part does not import the whole."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
