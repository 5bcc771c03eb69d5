"""Memory of this process, from /proc."""

from __future__ import annotations

from pathlib import Path

STATUS = Path("/proc/self/status")


def resident_mib() -> float | None:
    """Resident set now, MiB; None where /proc does not say."""
    return _field("VmRSS")


def peak_resident_mib() -> float | None:
    """Greatest resident set of this program so far, MiB.

    Not ru_maxrss: that one is inherited through fork and exec, so a child would tell its parent's peak.
    """
    return _field("VmHWM")


def _field(name: str) -> float | None:
    try:
        lines = STATUS.read_text("ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), None)
