"""Embedding jobs on a Ray cluster: one actor a worker holds a graph open, parts are handed out as actors get free.

Bundle, images and the output's folder must be at the same paths on every machine (a shared file system). Verified on a Ray
instance that it starts itself; on a cluster that stands already (RAY_ADDRESS) it was seen to hang, cause unknown.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray

from orinspect_edge_runtime.embed import EmbedJob, embed_part

Part = tuple[Path, Sequence[Path]]


class Worker:
    """An open graph in a process of its own. root: the folder that names of images are relative to."""

    def __init__(self, job: EmbedJob, root: Path) -> None:
        self._root = root
        self._backend, self._spec = job.open()

    def embed(self, part: Part) -> tuple[int, list[str]]:
        """Write one part."""
        file, images = part
        return embed_part(self._backend, self._spec, images, file, self._root)


def embed_parts(job: EmbedJob, parts: list[Part]) -> Iterator[tuple[int, list[str]]]:
    """Embed the parts on the cluster that RAY_ADDRESS names, or on this machine's cores; results as they come."""
    if not ray.is_initialized():
        # Without an address Ray looks for a cluster by itself, and waits for one that has ended.
        ray.init(os.environ.get("RAY_ADDRESS", "local"), log_to_driver=False, include_dashboard=False)
    # The list of all images stays here: a worker is sent those of its part.
    small = EmbedJob(job.bundle.resolve(), (), job.out, job.precision, job.backend, job.threads or 1)
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)) // small.threads)
    actor: Any = ray.remote(num_cpus=small.threads)(Worker)
    pool = ray.util.ActorPool([actor.remote(small, Path.cwd()) for _ in range(min(cores, len(parts)))])
    yield from pool.map_unordered(lambda worker, part: worker.embed.remote(part), parts)
