"""Everything known about the board behind a host: module, software, power mode, memory, as one value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from orinspect_jetson.host import Host
from orinspect_jetson.identity import Identity, identify
from orinspect_jetson.nvpmodel import PowerMode, PowerTable, active_sm, current_mode, packaged_tables, read_table
from orinspect_jetson.signals import cpu_count, memory_mib, read_mask, read_model
from orinspect_jetson.software import Software, read_software


@dataclass(frozen=True)
class Board:
    """A board, or whatever the host turned out to be (identity.is_jetson).

    conflicts: of identity and software together. sm_active: streaming multiprocessors switched on now, under
    tpc_pg_mask (of the driver, else of the power mode). None: not known.
    """

    identity: Identity
    software: Software
    conflicts: tuple[str, ...]
    model: str
    memory_mib: int | None
    cpus: int | None
    power_table: PowerTable | None
    power_mode: PowerMode | None
    tpc_pg_mask: int | None
    sm_active: int | None


def read_board(host: Host) -> Board:
    """Read everything. Never raises for what is missing or contradictory: it says so."""
    software = read_software(host)
    identity = identify(host, software)
    table = read_table(host, identity.power_configuration) if identity.is_jetson else None
    mode = _power_mode(host, table) if identity.is_jetson else None
    mask = read_mask(host) if identity.is_jetson else None
    if mask is None and mode is not None:
        mask = mode.tpc_pg_mask
    return Board(
        identity=identity,
        software=software,
        conflicts=(*identity.conflicts, *software.conflicts, *_release_conflicts(identity, software)),
        model=read_model(host),
        memory_mib=memory_mib(host),
        cpus=cpu_count(host),
        power_table=table,
        power_mode=mode,
        tpc_pg_mask=mask,
        sm_active=_sm_active(identity, mask),
    )


def _power_mode(host: Host, table: PowerTable | None) -> PowerMode | None:
    """The active mode with its clocks; of a mode that the table lacks only the id and name are known."""
    found = current_mode(host)
    if found is None:
        return None
    number, name = found
    mode = None if table is None else table.by_id(number)
    if mode is not None and name in (None, mode.name):
        return _completed(mode, table)
    return PowerMode(number, name or f"mode {number}", None, None, None, None, None, None, None)


def _completed(mode: PowerMode, table: PowerTable | None) -> PowerMode:
    """The mode with the SM count of its packaged twin where the board's own file sets no mask."""
    packaged = packaged_tables().get((table.configuration if table else None) or "")
    twin = None if packaged is None else packaged.by_id(mode.id)
    if twin is None or mode.sm is not None or twin.name != mode.name:
        return mode
    return dataclasses.replace(mode, tpc_pg_mask=twin.tpc_pg_mask, sm=twin.sm)


def _sm_active(identity: Identity, mask: int | None) -> int | None:
    if identity.chip is None or identity.chip.id != "tegra234" or mask is None:
        return None
    return active_sm(mask) if identity.module is None else min(active_sm(mask), identity.module.sm)


def _release_conflicts(identity: Identity, software: Software) -> list[str]:
    release, chip = software.release, identity.chip
    if release is None or chip is None or chip.id in release.chips:
        return []
    return [f"L4T {software.l4t} never supported {chip.name}: is this a container or a copied file system?"]
