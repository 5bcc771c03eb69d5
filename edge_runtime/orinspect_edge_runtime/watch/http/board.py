"""The board's sensors while somebody looks: the reader of the entry-point group `orinspect.telemetry`."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any

from orinspect_edge_runtime.telemetry import Meter, find_meter

# A reading is told again for so long, whoever asks.
HELD_S = 1.0


class Board:
    """Reads a meter when it is asked, at most every HELD_S; on a computer without one says so."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._meter: Meter | None = None
        self._sought, self._read_at = False, -HELD_S
        self._told: dict[str, Any] = {}

    def status(self) -> dict[str, Any]:
        """The fields of a Reading; `trouble` is why there are none."""
        with self._lock:
            if time.monotonic() >= self._read_at + HELD_S:
                self._told, self._read_at = self._read(), time.monotonic()
            return self._told

    def _read(self) -> dict[str, Any]:
        try:
            if not self._sought:
                self._meter, self._sought = find_meter(), True
            if self._meter is None:
                return {"trouble": "no sensors are known on this computer"}
            return dataclasses.asdict(self._meter.read()) | {"trouble": ""}
        except Exception as error:  # noqa: BLE001  a broken sensor must not take the dashboard along
            return {"trouble": f"reading the sensors failed ({' '.join(str(error).split())})"}
