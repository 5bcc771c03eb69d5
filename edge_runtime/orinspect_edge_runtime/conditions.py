"""The conditions under which a number was measured. No number without them."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RUNTIMES = ("orinspect", "numpy", "onnxruntime", "onnxruntime-gpu", "tensorrt", "pillow")


def measure_conditions(threads: int) -> dict[str, object]:
    """Machine, load, versions and time, as plain values. threads: what the backend was given, 0 for all cores."""
    return {
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "architecture": platform.machine(),
        "cores_available": len(os.sched_getaffinity(0)),
        "threads": threads or len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: found for name in RUNTIMES if (found := _version(name)) is not None},
    }


def machine() -> str:
    """Model of the board or processor, as the system names it."""
    for file in ("/sys/firmware/devicetree/base/model", "/proc/device-tree/model"):
        text = _read(file).strip("\0\n ")
        if text:
            return text
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _read(file: str) -> str:
    try:
        return Path(file).read_text(errors="replace")
    except OSError:
        return ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
