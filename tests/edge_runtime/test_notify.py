"""sd_notify over real sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from orinspect_edge_runtime.notify import Notifier


def test_messages_arrive(tmp_path: Path) -> None:
    for address in (str(tmp_path / "socket"), f"@orinspect-test-{os.getpid()}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
            server.settimeout(5)
            notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})
            assert notifier.ready("engine\nloaded")
            assert server.recv(200) == b"READY=1\nSTATUS=engine loaded"
            assert notifier.alive()
            assert server.recv(200) == b"WATCHDOG=1"
            assert notifier.stopping()
            assert server.recv(200) == b"STOPPING=1"
            assert notifier.interval_s == 15


def test_outside_a_service_it_does_nothing(tmp_path: Path) -> None:
    assert not Notifier({}).ready()
    assert Notifier({}).interval_s is None
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).alive()


def test_the_watchdog_of_another_process_is_not_ours() -> None:
    assert Notifier({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).interval_s is None
    assert Notifier({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}).interval_s == 0.5
    assert Notifier({"WATCHDOG_USEC": "x"}).interval_s is None


def test_a_systemd_that_does_not_read_stops_nobody(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "socket"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "socket")})
        assert not all(notifier.alive() for _ in range(10_000))
