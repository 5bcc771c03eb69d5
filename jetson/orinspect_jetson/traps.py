"""What a power mode's name does not say: warnings for the mode a board is in, or is about to be put in."""

from __future__ import annotations

from orinspect_jetson.nvpmodel import PowerMode, PowerTable


def warn_about(mode: PowerMode, table: PowerTable, gpu_max_mhz: float | None) -> list[str]:
    """One sentence for each trap of this mode; empty when it hides nothing. gpu_max_mhz: of the module, uncapped.

    The numbers come from the table itself, so a changed nvpmodel.conf changes them too.
    """
    found = []
    best = fastest(table, gpu_max_mhz)
    if mode.id == 0 and best is not None and best.id != 0:
        found.append(f"id 0 is {mode.name} on this board, not the fastest mode: that is {best.name} (id {best.id})")
    most_sm = max((other.sm for other in table.modes if other.sm is not None), default=None)
    if mode.sm is not None and most_sm is not None and mode.sm < most_sm:
        found.append(f"{mode.name} switches off GPU cores: {mode.sm} of {most_sm} SM stay on")
    if best is not None and best is not mode:
        ratio = _speed(best, table, gpu_max_mhz) / _speed(mode, table, gpu_max_mhz)
        if ratio >= 1.3:
            clock = "" if mode.gpu_max_mhz is None else f" ({mode.sm} SM at {mode.gpu_max_mhz:g} MHz)"
            found.append(f"{best.name} has {ratio:.2f} times the GPU throughput of {mode.name}{clock}")
    return found


def needs_reboot(now: PowerMode, then: PowerMode) -> bool | None:
    """Does the change switch GPU cores on or off, which works at boot only? None: a mask is not known."""
    if now.tpc_pg_mask is None or then.tpc_pg_mask is None:
        return None
    return now.tpc_pg_mask != then.tpc_pg_mask


def fastest(table: PowerTable, gpu_max_mhz: float | None) -> PowerMode | None:
    """The mode with the most GPU throughput, or None when the table does not say."""
    if not table.modes or any(mode.sm is None for mode in table.modes):
        return None
    return max(table.modes, key=lambda mode: _speed(mode, table, gpu_max_mhz))


def _speed(mode: PowerMode, table: PowerTable, gpu_max_mhz: float | None) -> float:
    """SM x GPU clock. An uncapped mode of an unknown module runs at least at the greatest cap of the others."""
    caps = [other.gpu_max_mhz for other in table.modes if other.gpu_max_mhz is not None]
    uncapped = gpu_max_mhz or max(caps, default=1.0)
    clock = mode.gpu_max_mhz if mode.gpu_max_mhz is not None else uncapped
    return (mode.sm or 1) * clock
