"""The processes of a run: this one, several that it starts on this machine, or those that torchrun or SLURM started.

torchrun and srun start one process for every device, on every node, each with the same command line. They all train;
the first alone decides, measures and writes, and tells the others.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import cuda, distributed

from orinspect_edge_runtime.errors import ConfigError

Result = TypeVar("Result")
# The others wait for the first while it measures the encoder.
PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Processes:
    """devices: of each of the nodes. rank: of this process. launched: whether something else started all of them."""

    devices: int = 1
    nodes: int = 1
    rank: int = 0
    launched: bool = False

    @property
    def total(self) -> int:
        """How many train together."""
        return self.devices * self.nodes

    @property
    def is_first(self) -> bool:
        """Whether this one decides and writes."""
        return self.rank == 0

    @property
    def strategy(self) -> str:
        """The trainer's name of how they meet."""
        return "auto" if self.total == 1 else "ddp" if self.launched else "ddp_spawn"

    def from_first(self, compute: Callable[[], Result]) -> Result:
        """What `compute` gives in the first process, in all of them."""
        if not self.launched:
            return compute()
        held = [compute() if self.is_first else None]
        distributed.broadcast_object_list(held, src=0)
        return held[0]  # type: ignore[return-value]


def join_processes(devices: int, nodes: int = 1) -> Processes:
    """The processes of this run; those that torchrun or SLURM started are connected with each other.

    Raises ConfigError for more devices than this machine has, and for other numbers than those of the launcher.
    """
    gpus = cuda.device_count() if cuda.is_available() else 0
    if devices < 1 or (gpus and devices > gpus):
        raise ConfigError(f"--devices {devices}: this machine has {gpus or 'no'} GPUs; pass 1 to {max(gpus, 1)}")
    found = _launcher()
    if found is None:
        if nodes != 1:
            raise ConfigError(f"--nodes {nodes}: start the command on every node with torchrun or srun")
        return Processes(devices)
    if devices * nodes != found.world_size():
        raise ConfigError(
            f"--devices {devices} --nodes {nodes} are {devices * nodes} processes, and {found.world_size()} were started"
        )
    if not distributed.is_initialized():
        address = f"tcp://{found.main_address}:{found.main_port}"
        backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
        if gpus:
            cuda.set_device(found.local_rank())
        distributed.init_process_group(
            backend, init_method=address, rank=found.global_rank(), world_size=found.world_size(), timeout=PATIENCE
        )
        # Threads of a group that is still there when the interpreter ends abort the process now and then.
        atexit.register(_leave_group)
    return Processes(devices, nodes, found.global_rank(), launched=True)


def _leave_group() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _launcher() -> ClusterEnvironment | None:
    for environment in (TorchElasticEnvironment, SLURMEnvironment):
        if environment.detect():
            found: ClusterEnvironment = environment()
            return found if found.world_size() > 1 else None
    return None
