"""Where the parts of a job are worked on: in this process, or in the processes of a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.parts import Job, Run, Work


@contextlib.contextmanager
def _local(job: Job) -> Iterator[Run]:
    with contextlib.ExitStack() as stack:
        opened: list[Work] = []

        def run(parts: Iterable[Any]) -> Iterator[tuple[Any, bytes]]:
            for part in parts:
                if not opened:
                    opened.append(stack.enter_context(job.open()))
                yield part, opened[0](part)

        yield run


def _ray(job: Job) -> AbstractContextManager[Run]:
    from orinspect_edge_runtime.ray_engine import ray_workers

    return ray_workers(job)


ENGINES: dict[str, Callable[[Job], AbstractContextManager[Run]]] = {"local": _local, "ray": _ray}


def open_engine(name: str, job: Job) -> AbstractContextManager[Run]:
    """What works on the parts of a job; the job is opened when there is a part. Raises InputError for an unknown name."""
    if name not in ENGINES:
        raise InputError(f"engine {name!r} is not known: use {' or '.join(ENGINES)}")
    return ENGINES[name](job)
