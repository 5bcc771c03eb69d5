"""Replays golden through an engine that was just built, in this process, before it is published."""

from __future__ import annotations

from orinspect_edge_runtime import golden
from orinspect_edge_runtime.backends.tensorrt import TensorRTBackend
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.engine import Engine
from orinspect_edge_runtime.golden import Replay
from orinspect_edge_runtime.manifest import GraphSpec


def replay_engine(bundle: Bundle, spec: GraphSpec, engine: Engine) -> tuple[Replay, str]:
    """How the engine reproduces golden, and TensorRT's own report on its layers (JSON)."""
    recorded = golden.read_golden(bundle)
    with TensorRTBackend(engine, spec) as opened:
        return golden.compare(opened, spec, recorded), opened.inspect()
