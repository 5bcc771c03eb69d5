"""From ONNX bytes to an engine's bytes, with whichever TensorRT module is passed in.

Runs on the target, in a process of its own (build_worker.py). Neither torch nor onnx is imported.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orinspect_edge_runtime.device import supported_version
from orinspect_edge_runtime.errors import CheckFailed
from orinspect_edge_runtime.manifest import TensorSpec
from orinspect_export import build_monitor, dla, timing_cache
from orinspect_export.build_monitor import Progress
from orinspect_export.memory_limits import Effort, set_limits
from orinspect_export.profiles import Range, add_profile
from orinspect_export.trt_network import Parsed, parse


@dataclass(frozen=True)
class BuildOptions:
    """What to build. inputs: of the graph. ranges: of its free dimensions. timing_cache: file, None for none.

    dla_core: None for the GPU. compute_capability: name of the target that TensorRT for RTX builds ahead of time for
    ("SM86"); empty: the GPU of this computer.
    """

    inputs: tuple[TensorSpec, ...]
    ranges: Mapping[str, Range]
    effort: Effort
    timing_cache: Path | None = None
    dla_core: int | None = None
    dla_force: bool = False
    compute_capability: str = ""


@dataclass(frozen=True)
class BuiltEngine:
    """plan: anything with the buffer protocol. layers: of the parsed network, before fusion. ranges: as used."""

    plan: Any
    tensorrt: str
    layers: int
    seconds: float
    ranges: Mapping[str, Range]
    reused_timings: bool = False
    dla: dict[str, Any] = field(default_factory=dict)


class BuildFailed(CheckFailed):
    """TensorRT took the graph but made no engine; less memory or a lower level may help."""


def build_engine(trt: Any, onnx: bytes, options: BuildOptions, progress: Progress) -> BuiltEngine:
    """Build. Raises InputError (TensorRT too old), GraphRefused, BuildFailed, or CheckFailed (DLA)."""
    version, start = supported_version(trt), time.perf_counter()
    parsed = parse(trt, onnx)
    config = parsed.builder.create_builder_config()
    set_limits(trt, config, options.effort)
    _set_precision_and_report(trt, config)
    _set_target(trt, config, options.compute_capability)
    ranges = dict(options.ranges) if options.dla_core is None else _static_batch(parsed, options)
    used = add_profile(parsed.builder, config, options.inputs, ranges)
    placed = {} if options.dla_core is None else _plan_dla(trt, parsed, config, options)
    reused = options.timing_cache is not None and timing_cache.attach(config, options.timing_cache)
    monitor = build_monitor.attach(trt, config, progress)
    plan = parsed.builder.build_serialized_network(parsed.network, config)
    del monitor
    if plan is None:
        raise BuildFailed(f"TensorRT {version} made no engine: {'; '.join(parsed.errors[-2:]) or 'it gave no reason'}")
    if options.timing_cache is not None:
        timing_cache.save(config, options.timing_cache)
    layers, seconds = parsed.network.num_layers, time.perf_counter() - start
    return BuiltEngine(plan, version, layers, seconds, used, reused, placed)


def _set_precision_and_report(trt: Any, config: Any) -> None:
    # Without this TensorRT rounds the factors of every fp32 product to 10 bits (TF32), the distances of the head
    # among them, which are differences of large numbers. The encoder's speed comes from its fp16 or int8 graph.
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED


def _set_target(trt: Any, config: Any, compute_capability: str) -> None:
    if compute_capability and hasattr(config, "set_compute_capability"):
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, compute_capability), 0)


def _static_batch(parsed: Parsed, options: BuildOptions) -> dict[str, Range]:
    """The DLA takes fixed shapes only: one frame at a time. The head's inputs stay free, on the GPU."""
    for index, spec in enumerate(options.inputs):
        if "batch" in spec.shape:
            parsed.network.get_input(index).shape = tuple(1 if d == "batch" else d for d in spec.shape)
    return {**options.ranges, "batch": (1, 1, 1)}


def _plan_dla(trt: Any, parsed: Parsed, config: Any, options: BuildOptions) -> dict[str, Any]:
    assert options.dla_core is not None
    dla.require_dla(trt, parsed.builder)
    dla.set_dla(trt, config, options.dla_core)
    found = dla.report(parsed.network, config)
    if not options.dla_force:
        dla.require_worthwhile(found)
    return found.to_json()
