"""A board as plain values (for --json) and as lines (for people)."""

from __future__ import annotations

import dataclasses
from typing import Any

from orinspect_jetson.board import Board
from orinspect_jetson.nvpmodel import PowerMode
from orinspect_jetson.traps import warn_about

SCHEMA_VERSION = 1


def as_json(board: Board) -> dict[str, Any]:
    """The whole board; keys are stable within a schema_version. Unknown values are null."""
    identity, software = board.identity, board.software
    chip, module = identity.chip, identity.module
    release = software.release
    return {
        "schema_version": SCHEMA_VERSION,
        "is_jetson": identity.is_jetson,
        "name": identity.name,
        "certainty": identity.certainty,
        "confidence": identity.confidence,
        "module": None if module is None else module.part,
        "candidates": list(identity.candidates) if module is None else [module.part],
        "super": identity.super,
        "chip": None if chip is None else chip.id,
        "compute_capability": None if chip is None else chip.compute_capability,
        "model_string": board.model or None,
        "memory_mib": board.memory_mib,
        "cpus": board.cpus,
        "sm_total": None if module is None else module.sm,
        "sm_active": board.sm_active,
        "tpc_pg_mask": board.tpc_pg_mask,
        "dla_cores": None if module is None else module.dla_cores,
        "dla_compiler": software.dla_compiler,
        "power_mode": None if board.power_mode is None else dataclasses.asdict(board.power_mode),
        "l4t": software.l4t,
        "jetpack": software.jetpack,
        "jetpack_is_exact": software.is_exact,
        "tensorrt": software.tensorrt,
        "tensorrt_of_jetpack": None if release is None else release.tensorrt,
        "cuda": software.cuda,
        "cudnn": software.cudnn,
        "sbsa": software.sbsa,
        "ubuntu": software.ubuntu,
        "kernel": software.kernel,
        "in_container": software.in_container,
        "signals": [
            {"name": s.name, "value": s.value, "weight": s.weight, "modules": sorted(s.says)} for s in identity.signals
        ],
        "conflicts": list(board.conflicts),
    }


def as_lines(board: Board) -> list[tuple[str, str]]:
    """(label, text) pairs, the verdict first; conflicts are left to the caller."""
    identity, software = board.identity, board.software
    if not identity.is_jetson:
        return [("board", identity.name)]
    lines = [("board", f"{identity.name}  ({identity.certainty}, {_agreement(board)})")]
    module, chip = identity.module, identity.chip
    if module is not None:
        lines.append(("module", f"{module.part}, {_memory(board)}, {board.cpus or '?'} CPUs"))
    if chip is not None:
        lines.append(("gpu", f"{chip.name} ({chip.id}), compute capability {chip.compute_capability}, {_sm(board)}"))
    if module is not None:
        lines.append(("dla", _dla(board)))
    if board.power_mode is not None:
        lines.append(("power mode", describe_mode(board.power_mode)))
    user_space = {True: ", SBSA user space", False: "", None: ""}[software.sbsa]
    jetpack = f"JetPack {software.jetpack}" if software.jetpack else "JetPack not known"
    lines.append(("software", f"L4T {software.l4t or 'not found'}, {jetpack}{user_space}"))
    versions = (("TensorRT", software.tensorrt), ("CUDA", software.cuda), ("cuDNN", software.cudnn))
    lines.append(("", ", ".join(f"{name} {version or 'not found'}" for name, version in versions)))
    lines.append(("system", f"Ubuntu {software.ubuntu or '?'}, kernel {software.kernel or '?'}" + _inside(board)))
    return lines


def describe_mode(mode: PowerMode) -> str:
    """One line: name, id and the caps that are known."""
    caps = [
        None if mode.sm is None else f"{mode.sm} SM",
        None if mode.gpu_max_mhz is None else f"GPU at most {mode.gpu_max_mhz:g} MHz",
        None if mode.cpus is None else f"{mode.cpus} CPUs",
        None if mode.cpu_max_mhz is None else f"CPU at most {mode.cpu_max_mhz:g} MHz",
        None if mode.emc_max_mhz is None else f"memory at most {mode.emc_max_mhz:g} MHz",
        None if mode.dla_max_mhz is None else f"DLA at most {mode.dla_max_mhz:g} MHz",
    ]
    known = ", ".join(cap for cap in caps if cap)
    return f"{mode.name} (id {mode.id})" + (f": {known}" if known else "")


def modes_as_lines(board: Board) -> list[str]:
    """One line a mode, the active one marked, then the traps of the active one."""
    table = board.power_table
    if table is None:
        return []
    lines = [f"{board.identity.name}: modes of {table.origin}"]
    for mode in table.modes:
        mark = "*" if board.power_mode is not None and board.power_mode.id == mode.id else " "
        default = "  [default]" if mode.id == table.default_id else ""
        lines.append(f"{mark} {describe_mode(mode)}{default}")
    if board.power_mode is not None:
        lines += [
            f"warning: {sentence}" for sentence in warn_about(board.power_mode, table, board.identity.gpu_max_mhz)
        ]
    return lines


def modes_as_json(board: Board) -> dict[str, Any]:
    """All modes, the active one and its traps."""
    table, active = board.power_table, board.power_mode
    return {
        "schema_version": SCHEMA_VERSION,
        "board": board.identity.name,
        "origin": None if table is None else table.origin,
        "default_id": None if table is None else table.default_id,
        "active_id": None if active is None else active.id,
        "modes": [] if table is None else [dataclasses.asdict(mode) for mode in table.modes],
        "warnings": [] if table is None or active is None else warn_about(active, table, board.identity.gpu_max_mhz),
    }


def _agreement(board: Board) -> str:
    agreeing = [s for s in board.identity.signals if s.says & set(board.identity.candidates)]
    return f"{len(agreeing)} of {len(board.identity.signals)} signals agree"


def _memory(board: Board) -> str:
    return "memory not known" if board.memory_mib is None else f"{board.memory_mib} MiB"


def _sm(board: Board) -> str:
    total = None if board.identity.module is None else board.identity.module.sm
    if board.sm_active is None:
        return f"{total or '?'} SM"
    if total is not None and board.sm_active < total:
        return f"{board.sm_active} of {total} SM switched on"
    return f"{board.sm_active} SM"


def _dla(board: Board) -> str:
    cores = 0 if board.identity.module is None else board.identity.module.dla_cores
    if not cores:
        return "none"
    return f"{cores} core(s), " + ("compiler found" if board.software.dla_compiler else "compiler NOT found")


def _inside(board: Board) -> str:
    return ", in a container" if board.software.in_container else ""
