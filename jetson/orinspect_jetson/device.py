"""This board as engines see it: the reader behind the entry point `orinspect.device`."""

from __future__ import annotations

from orinspect_edge_runtime.device import Device, free_memory_mib
from orinspect_jetson.board import read_board
from orinspect_jetson.host import Host


def read_device(host: Host | None = None) -> Device:
    """The board behind the host (this computer's root by default); fields stay empty on a computer that is no Jetson."""
    board = read_board(host or Host())
    module, software, chip = board.identity.module, board.software, board.identity.chip
    if not board.identity.is_jetson:
        return Device(cuda=software.cuda or "", free_mib=free_memory_mib())
    return Device(
        module="" if module is None else module.part,
        module_name=board.identity.name,
        l4t=software.l4t or "",
        tensorrt=software.tensorrt or "",
        cuda=software.cuda or "",
        sm="" if chip is None else chip.compute_capability,
        sm_count=board.sm_active or 0,
        power_mode="" if board.power_mode is None else board.power_mode.name,
        free_mib=free_memory_mib(),
        dla_cores=0 if module is None else module.dla_cores,
    )
