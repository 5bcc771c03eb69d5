"""Triggers by an input line that is a file holding 0 or 1: sysfs GPIO, or whatever a PLC's driver offers in its way."""

from __future__ import annotations

import logging
import os
import select
import threading

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.watch.trigger import Trigger

LOG = logging.getLogger("orinspect.watch")
WAIT_S = 1.0
# What an edge is: the value before and after it.
EDGE = {"rising": ((0, 1),), "falling": ((1, 0),), "both": ((0, 1), (1, 0))}


class GpioLine:
    """A thread that fires the trigger at the edges of one line. trouble: why the line cannot be read now.

    A driver that reports edges (sysfs, once its `edge` file names some) wakes it at once; others are read every poll_ms.
    """

    def __init__(self, path: str, recipe: str, trigger: Trigger) -> None:
        self.path, self.trouble = path, ""
        self._recipe, self._trigger = recipe, trigger
        self._poll_ms, self._edges = trigger.config.poll_ms, EDGE[trigger.config.edge]
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpio", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._closing.set()
        self._thread.join(1)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._follow()
            except (InputError, OSError, ValueError) as error:
                if str(error) != self.trouble:
                    LOG.warning("trigger line %s: %s", self.path, error)
                self.trouble = str(error)
                self._closing.wait(WAIT_S)

    def _follow(self) -> None:
        handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            edges = select.poll()
            edges.register(handle, select.POLLPRI | select.POLLERR)
            before = _value(handle)
            self.trouble = ""
            while not self._closing.is_set():
                edges.poll(self._poll_ms)
                now = _value(handle)
                if (before, now) in self._edges:
                    self._trigger.fire(self._recipe, by=self.path)
                before = now
        finally:
            os.close(handle)


def gpio_lines(trigger: Trigger) -> list[GpioLine]:
    """The lines of a configuration, followed from now on. Raises InputError: one names a recipe that is not open."""
    for recipe in trigger.config.gpio.values():
        trigger.check(recipe)
    return [GpioLine(path, recipe, trigger) for path, recipe in trigger.config.gpio.items()]


def _value(handle: int) -> int:
    """0 or 1. Raises ValueError for anything else, OSError when the line has gone."""
    content = os.pread(handle, 16, 0).strip()
    if content not in (b"0", b"1"):
        raise ValueError(f"holds {content!r} where 0 or 1 is expected")
    return int(content)
