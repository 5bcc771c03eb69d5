"""systemd's readiness and watchdog protocol (sd_notify(3)): one datagram to the socket in $NOTIFY_SOCKET.

Call `alive` from the inference loop itself, after a verdict: a side thread would keep a hung engine alive for ever.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Tells systemd how the service is. Does nothing outside a Type=notify service."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL of Linux's abstract sockets.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_us = _watchdog_us(environment)

    @property
    def interval_s(self) -> float | None:
        """How often `alive` must be called at least: half the watchdog's time. None: there is no watchdog."""
        return None if self._watchdog_us is None else self._watchdog_us / 2e6

    def ready(self, status: str = "") -> bool:
        """Started: the engine is loaded and one inference was verified. True when systemd was told."""
        return self._send("READY=1", status)

    def alive(self, status: str = "") -> bool:
        """One more inference is done."""
        return self._send("WATCHDOG=1", status, timeout_s=0)

    def stopping(self, status: str = "") -> bool:
        """Shutting down."""
        return self._send("STOPPING=1", status, timeout_s=0)

    def _send(self, state: str, status: str, timeout_s: float = 5) -> bool:
        if not self._address:
            return False
        text = state + (f"\nSTATUS={' '.join(status.split())}" if status else "")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            # A systemd that is too busy to read must not stop the inference loop.
            channel.settimeout(timeout_s)
            try:
                channel.sendto(text.encode(), self._address)
            except OSError:
                # systemd has gone or restarts: the service must not fail for that.
                return False
        return True


def _watchdog_us(environment: Mapping[str, str]) -> int | None:
    """WATCHDOG_USEC, when it is meant for this process."""
    try:
        if int(environment.get("WATCHDOG_PID", os.getpid())) != os.getpid():
            return None
        return int(environment["WATCHDOG_USEC"]) or None
    except (KeyError, ValueError):
        return None
