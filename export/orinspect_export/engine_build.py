"""`orinspect build` without its command line: build, replay golden, and only then publish."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from orinspect_edge_runtime import durable
from orinspect_edge_runtime import engine as engines
from orinspect_edge_runtime import passport as passports
from orinspect_edge_runtime.bank_rule import BankRule
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.device import Device
from orinspect_edge_runtime.engine import LAYERS, PASSPORT, Engine
from orinspect_edge_runtime.errors import CheckFailed
from orinspect_edge_runtime.golden import Replay
from orinspect_edge_runtime.heads import covariance_dim
from orinspect_edge_runtime.manifest import GraphSpec
from orinspect_edge_runtime.passport import EnginePassport
from orinspect_edge_runtime.recipe import Recipe
from orinspect_export import layer_report, timing_cache
from orinspect_export.build_monitor import Progress
from orinspect_export.build_process import LOG, build_in_process
from orinspect_export.build_worker import GRAPH, PLAN, REQUEST, RESULT
from orinspect_export.builder import BuildOptions
from orinspect_export.memory_limits import DEFAULT_LEVEL, first_effort, ladder
from orinspect_export.profiles import ranges_for

# Replays golden through an engine that is not published yet; returns how it went and the inspector's JSON.
ReplayEngine = Callable[[Bundle, GraphSpec, Engine], tuple[Replay, str]]
_SCRATCH = (REQUEST, GRAPH, RESULT, LOG)


@dataclass(frozen=True)
class BuildRequest:
    """What to build for which graph. recipe: whose sizes the engine is tuned for; None: typical ones.

    batch: the largest number of frames in one call. dla: None for the GPU, else the number of the DLA core.
    """

    precision: str = "fp16"
    head: str = "patchcore"
    recipe: str | None = None
    batch: int = 8
    level: int = DEFAULT_LEVEL
    dla: int | None = None
    dla_force: bool = False


def build_for_bundle(
    bundle: Bundle,
    request: BuildRequest,
    here: Device,
    library: str,
    replay: ReplayEngine,
    progress: Progress,
    announce: Callable[[str], object] = lambda text: None,
) -> EnginePassport:
    """Build, replay golden and publish one engine. library: name of the TensorRT module; here: with its version.

    Raises CheckFailed: refused, no engine, or it does not reproduce golden; then nothing has changed.
    """
    spec = bundle.manifest.graph(request.precision, request.head)
    options = _options(bundle, spec, request, here)
    with engines.new_engine(bundle.path, spec) as folder:
        onnx, efforts = bundle.read(spec.file), ladder(here.free_mib, request.level)
        built = build_in_process(folder, library, onnx, options, efforts, progress, announce)
        plan = (folder / PLAN).read_bytes()
        draft = _passport(bundle, spec, here, plan, built)
        replayed, inspected = replay(bundle, spec, Engine(folder, plan, draft))
        _require_golden(replayed)
        passport = dataclasses.replace(
            draft, least_cosine=replayed.least_cosine, rank_correlation=replayed.rank_correlation
        )
        for name in _SCRATCH:
            (folder / name).unlink(missing_ok=True)
        durable.write_bytes(folder / LAYERS, _layers(inspected, built))
        durable.write_bytes(folder / PASSPORT, passports.to_bytes(passport))
    return passport


def _options(bundle: Bundle, spec: GraphSpec, request: BuildRequest, here: Device) -> BuildOptions:
    rows, groups, columns = None, None, covariance_dim(spec.inputs)
    if request.recipe is not None:
        recipe = bundle.recipe(request.recipe)
        rows = _rows_in_engine(recipe)
        columns = recipe.arrays["patch_factors"].shape[3] if "patch_factors" in recipe.arrays else columns
        groups = len(recipe.group_sizes)
    return BuildOptions(
        inputs=spec.inputs,
        ranges=ranges_for(rows, groups, request.batch, columns),
        effort=first_effort(here.free_mib, request.level),
        timing_cache=timing_cache.cache_file(bundle.path / engines.ENGINES, here).absolute(),
        dla_core=request.dla,
        dla_force=request.dla_force,
    )


def _rows_in_engine(recipe: Recipe) -> int | None:
    """Rows of a recipe's bank that its engine is given, None without a bank: one, where the bank is searched beside it."""
    if "bank" not in recipe.arrays:
        return None
    return recipe.arrays["bank"].shape[1] if BankRule.of(recipe.arrays).in_graph else 1


def _passport(bundle: Bundle, spec: GraphSpec, here: Device, plan: bytes, built: dict[str, Any]) -> EnginePassport:
    return EnginePassport(
        module=here.module,
        module_name=here.module_name,
        l4t=here.l4t,
        tensorrt=built["tensorrt"],
        cuda=here.cuda,
        sm=here.sm,
        sm_count=here.sm_count,
        power_mode=here.power_mode,
        precision=spec.precision,
        head=spec.head,
        onnx_sha256=bundle.manifest.files[spec.file].sha256,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
        inputs=spec.inputs,
        outputs=spec.outputs,
        profile={name: (low, typical, high) for name, (low, typical, high) in built["ranges"].items()},
        least_cosine=0.0,
        rank_correlation=0.0,
        created_with=f"orinspect {version('orinspect')}",
        build={
            "seconds": round(float(built["seconds"]), 3),
            "peak_mib": int(built["peak_mib"]),
            "attempts": int(built["attempts"]),
            **{name: int(value) for name, value in built["effort"].items()},
        },
        kind=here.library,
    )


def _require_golden(replayed: Replay) -> None:
    if not replayed.passed:
        raise CheckFailed(
            f"the engine does not reproduce golden (cosine {replayed.least_cosine:.5f}, rank "
            f"{replayed.rank_correlation:.4f}) and was not published: export that precision again, or use another one"
        )


def _layers(inspected: str, built: dict[str, Any]) -> bytes:
    rows = layer_report.read_layers(inspected)
    report = {"layers": [asdict(row) for row in rows], "precisions": layer_report.precisions(rows), "dla": built["dla"]}
    return (json.dumps(report, indent=1) + "\n").encode()
