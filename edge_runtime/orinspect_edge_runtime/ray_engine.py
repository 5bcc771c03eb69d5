"""Jobs on a Ray cluster: one process a worker holds a job open; parts are handed out as workers get free.

Bundle and images must be at the same paths on every machine, and each must have this version of orinspect. What a part
leaves behind comes back through Ray: only this process writes. Verified on one machine: on a Ray instance that it starts
itself, on a cluster started with `ray start`, and on two hosts that are network namespaces of it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray

from orinspect_edge_runtime.errors import InputError, OrinspectError
from orinspect_edge_runtime.parts import Job, Opens, Run

# Seconds. A worker that begins on a busy machine imports Ray and this package, opens a bundle and a graph.
WAIT_FOR_ADDRESS = 10.0
WAIT_FOR_WORKER = 180.0


class Worker:
    """A job opened in a process of its own."""

    def open(self, job: Opens, root: Path, wanted: str) -> None:
        """Make ready for parts. root: the folder that names of files are relative to; wanted: version of orinspect."""
        here = socket.gethostname()
        if version("orinspect") != wanted:
            raise InputError(f"{here} has orinspect {version('orinspect')}, not {wanted}: install the same everywhere")
        try:
            os.chdir(root)
        except OSError as error:
            raise InputError(f"{here}: {root}: {error.strerror}; share this folder with every machine") from error
        self._stack = ExitStack()
        self._work = self._stack.enter_context(job.open())

    def work(self, part: Any) -> bytes:
        """The content of a part's file."""
        return self._work(part)


@contextlib.contextmanager
def ray_workers(job: Job) -> Iterator[Run]:
    """Workers on the cluster that RAY_ADDRESS names, else on this machine's cores.

    Raises InputError when the cluster cannot be reached, no machine of it is large enough, or none gets free in time.
    """
    with ExitStack() as stack:
        crew: list[_Crew] = []

        def run(parts: Iterable[Any]) -> Iterator[tuple[Any, bytes]]:
            todo = deque(parts)
            if todo and not crew:
                # Ray tells of a lost worker on stdout, where results belong.
                stack.enter_context(contextlib.redirect_stdout(sys.stderr))
                stack.enter_context(_connected())
                crew.append(_Crew(job))
            if todo:
                yield from crew[0].run(todo)

        yield run


class _Crew:
    """The workers of a job: those that are starting, those that are free, and those with a part."""

    def __init__(self, job: Job) -> None:
        self._cpus = job.threads or 1
        self._actor: Any = ray.remote(num_cpus=self._cpus)(Worker)
        self._opening = (job.elsewhere(), Path.cwd(), version("orinspect"))
        self._starting: dict[Any, Any] = {}
        self._free: list[Any] = []
        self._busy: dict[Any, tuple[Any, Any]] = {}

    def run(self, todo: deque[Any]) -> Iterator[tuple[Any, bytes]]:
        """The parts as they get ready. A part whose worker was lost with its machine is given to another one."""
        for _ in range(min(_room(self._cpus), len(todo)) - len(self._free) - len(self._starting)):
            worker = self._actor.remote()
            self._starting[worker.open.remote(*self._opening)] = worker
        while todo or self._busy:
            while todo and self._free:
                worker, part = self._free.pop(), todo.popleft()
                self._busy[worker.work.remote(part)] = worker, part
            # With a worker at work there is no hurry: the others wait until the cluster has room for them.
            done, _ = ray.wait([*self._starting, *self._busy], timeout=None if self._busy else WAIT_FOR_WORKER)
            if not done:
                raise InputError(_why_none(self._cpus))
            yield from self._answered(done[0], todo)

    def _answered(self, answer: Any, todo: deque[Any]) -> Iterator[tuple[Any, bytes]]:
        worker, part = self._busy.pop(answer, (self._starting.pop(answer, None), None))
        try:
            content = _result(answer)
        except ray.exceptions.RayActorError as error:
            if not (self._free or self._busy or self._starting):
                raise InputError(f"the Ray cluster lost every worker: {_in_short(error)}") from error
            todo.extend([] if part is None else [part])
            return
        self._free.append(worker)
        if part is not None:
            yield part, content


def _result(answer: Any) -> Any:
    """What a worker answered. Raises its own error when that is one of orinspect's."""
    try:
        return ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, OrinspectError):
            raise error.cause from error
        raise InputError(f"a Ray worker failed: {_in_short(error)}") from error


def _in_short(error: Exception) -> str:
    """The last line of what Ray says, which for an error in a worker is that error."""
    return str(error).strip().splitlines()[-1].strip()


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    # Without an address Ray looks for a cluster by itself, and waits for one that has ended.
    address = os.environ.get("RAY_ADDRESS", "local")
    _knock(address)
    try:
        with _unsaid():
            ray.init(address, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        # A cluster that asks for a token does not let in a program that brings none; Ray tells it as a lost connection.
        raise InputError(
            f"the Ray cluster {address} does not let this program in ({_in_short(error)}): see  ray status;  one that asks "
            "for a token (Ray 2.5x and later) needs RAY_AUTH_MODE=token here, or RAY_ADDRESS=auto on its own machine"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _unsaid() -> Iterator[None]:
    """Nothing goes to stderr: Ray's C++ part warns there once a second of a cluster that does not let it in."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123 - no path of ours
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _knock(address: str) -> None:
    """Raises InputError when nobody listens at host:port; Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), WAIT_FOR_ADDRESS).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster answers at {address} ({error.strerror or error}): correct RAY_ADDRESS, start it with  "
            "ray start --head,  or unset RAY_ADDRESS to use this machine's cores"
        ) from error


def _room(cpus: int) -> int:
    """How many workers of so many CPUs the machines of the cluster hold. Raises InputError when none does."""
    sizes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    if not (room := sum(size // cpus for size in sizes)):
        raise InputError(
            f"a worker of {cpus} CPUs fits on no machine of the Ray cluster (the largest has {max(sizes, default=0)}): "
            "give fewer --threads"
        )
    return room


def _why_none(cpus: int) -> str:
    free, all_ = (what.get("CPU", 0) for what in (ray.available_resources(), ray.cluster_resources()))
    if free < cpus:
        return (
            f"{free:g} of the {all_:g} CPUs of the Ray cluster are free, and for {WAIT_FOR_WORKER:.0f} seconds none got "
            "free: wait until its other jobs end (see  ray status) and run this again"
        )
    return f"no worker began on the Ray cluster in {WAIT_FOR_WORKER:.0f} seconds, though CPUs are free: see  ray status"
