"""How much memory a build may use, and what to try when it was too much.

On a Jetson the CPU and the GPU share the memory, TensorRT takes all of it for its workspace unless told otherwise, and
a builder that grows too large takes the whole board down: 8 GB and 4 GB boards are the usual victims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LARGEST_WORKSPACE_MIB = 1024
SMALLEST_WORKSPACE_MIB = 32
DEFAULT_LEVEL = 3
RUNGS = 3


@dataclass(frozen=True)
class Effort:
    """What one attempt may use. workspace_mib: of one layer's scratch memory; tactic_mib: of tuning, host side
    included; level: builder optimization level, 0 (fast build) to 5 (slow build).
    """

    workspace_mib: int
    tactic_mib: int
    level: int

    @property
    def words(self) -> str:
        """The attempt for people."""
        return f"workspace {self.workspace_mib} MiB, level {self.level}"


def first_effort(free_mib: int, level: int = DEFAULT_LEVEL) -> Effort:
    """A quarter of the free memory for the workspace, half of it for tuning; 0 (unknown) counts as 2 GiB."""
    free = free_mib or 2048
    workspace = min(LARGEST_WORKSPACE_MIB, max(SMALLEST_WORKSPACE_MIB, free // 4))
    return Effort(workspace, max(2 * SMALLEST_WORKSPACE_MIB, free // 2), level)


def ladder(free_mib: int, level: int = DEFAULT_LEVEL) -> tuple[Effort, ...]:
    """The attempts in order: each with a quarter of the memory of the one before it and one level lower."""
    efforts = [first_effort(free_mib, level)]
    while len(efforts) < RUNGS:
        last = efforts[-1]
        workspace = max(SMALLEST_WORKSPACE_MIB, last.workspace_mib // 4)
        tactic = max(2 * SMALLEST_WORKSPACE_MIB, last.tactic_mib // 2)
        efforts.append(Effort(workspace, tactic, max(0, last.level - 1)))
    return tuple(efforts)


def set_limits(trt: Any, config: Any, effort: Effort) -> None:
    """Set the pools and the level on a builder configuration."""
    for name, mib in (("WORKSPACE", effort.workspace_mib), ("TACTIC_DRAM", effort.tactic_mib)):
        if hasattr(trt.MemoryPoolType, name):
            config.set_memory_pool_limit(getattr(trt.MemoryPoolType, name), mib * 2**20)
    config.builder_optimization_level = effort.level
