"""What the builder is doing, told as it happens, where the TensorRT version can tell (IProgressMonitor)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Name of the phase, steps done, steps in all.
Progress = Callable[[str, int, int], object]


def attach(trt: Any, config: Any, progress: Progress) -> Any:
    """Make the builder report its outermost phases. Returns what must stay alive during the build, or None."""
    if not hasattr(trt, "IProgressMonitor") or not hasattr(config, "progress_monitor"):
        return None
    monitor = _monitor(trt, progress)
    config.progress_monitor = monitor
    return monitor


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the base class comes with the module
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self._steps[phase_name] = num_steps
                progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._steps:
                progress(phase_name, step + 1, self._steps[phase_name])
            # True goes on. A wish to stop is carried out from outside, by ending the process.
            return True

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, None)
            if steps is not None:
                progress(phase_name, steps, steps)

    return Monitor()
