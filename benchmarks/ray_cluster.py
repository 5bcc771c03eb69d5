"""Ray clusters that stand before a command uses them: on this machine, and on two hosts with a network between them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
COMMON = ["--object-store-memory=80000000"]
OPEN = {"RAY_AUTH_MODE": "disabled"}
# The environment in which a cluster is used, and what is put before a command to run it on its first host.
Cluster = tuple[dict[str, str], list[str]]
HOSTS = {"orinspect-a": "10.77.0.1", "orinspect-b": "10.77.0.2"}
PORT = 6390


@contextmanager
def one_host(cpus: int) -> Iterator[Cluster]:
    """`ray start --head` with so many CPUs, on loopback."""
    ports = []
    for _ in range(2):
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            ports.append(listening.getsockname()[1])
    with _started([*_head("127.0.0.1", ports[0], cpus), f"--ray-client-server-port={ports[1]}"]):
        yield OPEN | {"RAY_ADDRESS": f"127.0.0.1:{ports[0]}"}, []


@contextmanager
def two_hosts(cpus: int) -> Iterator[Cluster]:
    """The head on a host without CPUs for work, so many on another one: two network namespaces, which take root."""
    with ExitStack() as stack:
        (first, head), (second, other) = HOSTS.items()
        for name in HOSTS:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
        _ip("link", "add", "orin-a", "netns", first, "type", "veth", "peer", "name", "orin-b", "netns", second)
        for (name, address), link in zip(HOSTS.items(), ("orin-a", "orin-b"), strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", link)
            for device in ("lo", link):
                _ip("-n", name, "link", "set", device, "up")
        stack.enter_context(_started([*_on(first), *_head(head, PORT, 0)]))
        joining = [*RAY, f"--address={head}:{PORT}", f"--node-ip-address={other}", f"--num-cpus={cpus}", *COMMON]
        stack.enter_context(_started([*_on(second), *joining]))
        yield OPEN | {"RAY_ADDRESS": f"{head}:{PORT}"}, _on(first)


def _head(address: str, port: int, cpus: int) -> list[str]:
    where = [f"--node-ip-address={address}", f"--port={port}", f"--num-cpus={cpus}"]
    return [*RAY, "--head", "--include-dashboard=false", *where, *COMMON]


def _on(host: str) -> list[str]:
    return ["ip", "netns", "exec", host]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@contextmanager
def _started(command: list[str]) -> Iterator[None]:
    """Ray's processes, from when they are ready until the end of the block."""
    process = subprocess.Popen(
        command, env=os.environ | OPEN, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        assert any("Ray runtime started" in line for line in process.stdout), "ray did not start"
        yield
    finally:
        process.terminate()
        process.wait(60)
