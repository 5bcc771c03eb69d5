"""The sinks of a configuration: the journal always, the others where the file names them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orinspect_edge_runtime.preprocess import Frame
from orinspect_edge_runtime.watch.config import WatchConfig
from orinspect_edge_runtime.watch.event import Event
from orinspect_edge_runtime.watch.forwarder import Forwarder
from orinspect_edge_runtime.watch.journal import Journal
from orinspect_edge_runtime.watch.mqtt import Mqtt
from orinspect_edge_runtime.watch.outbox import Outbox
from orinspect_edge_runtime.watch.saver import Picture, Saver
from orinspect_edge_runtime.watch.slot import Item
from orinspect_edge_runtime.watch.trigger import Trigger
from orinspect_edge_runtime.watch.webhook import Webhook


class Sinks:
    """Every sink with its own thread."""

    def __init__(self, config: WatchConfig, trigger: Trigger | None = None) -> None:
        journal = config.journal
        self._boxes = [Outbox("journal", Journal(journal).write, queue=journal.queue, batch=journal.batch)]
        if config.jsonl is not None:
            lines = JsonLines(Path(config.jsonl.path))
            self._boxes.append(Outbox("jsonl", lines.write, queue=config.jsonl.queue, batch=30))
        self._savers: list[tuple[Saver, Outbox[Picture]]] = []
        if config.images is not None:
            saver = Saver(config.images)
            self._savers.append((saver, Outbox("images", saver.write, queue=config.images.queue, batch=1)))
        self._receivers = _receivers(config, trigger)
        path = Path(journal.path)
        self._forwarders = [Forwarder(name, path, to.deliver) for name, to in self._receivers.items()]

    def offer(self, event: Event, item: Item | None = None) -> None:
        """Give an event, and the frame that it is of, to every sink. Never waits."""
        for box in self._boxes:
            box.offer(event)
        for saver, pictures in self._savers:
            if isinstance(item, Frame) and saver.wants(event):
                pictures.offer((event, item.pixels))

    @property
    def queued(self) -> int:
        """Events of the fullest queue."""
        return max(box.queued for box in self._boxes)

    def close(self, deadline: float) -> int:
        """Drain until the time.monotonic `deadline`; the number of events that were left, over all sinks."""
        left = sum(box.close(deadline) for box in self._outboxes())
        for forwarder in self._forwarders:
            forwarder.close(deadline)
        for receiver in self._receivers.values():
            receiver.close()
        return left

    def status(self) -> dict[str, dict[str, object]]:
        """Counts and troubles by sink."""
        running: list[Outbox[Any] | Forwarder] = [*self._outboxes(), *self._forwarders]
        return {b.name: {"delivered": b.delivered, "dropped": b.dropped, "trouble": b.trouble} for b in running}

    def _outboxes(self) -> list[Outbox[Any]]:
        return [*self._boxes, *(pictures for _, pictures in self._savers)]


def _receivers(config: WatchConfig, trigger: Trigger | None) -> dict[str, Mqtt | Webhook]:
    found: dict[str, Mqtt | Webhook] = {}
    if config.mqtt is not None:
        found["mqtt"] = Mqtt(config.mqtt, trigger)
    if config.webhook is not None:
        found["webhook"] = Webhook(config.webhook)
    return found


class JsonLines:
    """A file with one JSON object a line. A line that a full disk cut off is taken back, so every line is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, events: Sequence[Event]) -> None:
        """Append the events. Raises OSError."""
        content = "".join(event.to_json() + "\n" for event in events).encode()
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            before = os.fstat(handle).st_size
            try:
                if os.write(handle, content) != len(content):
                    raise OSError("the disk is full")
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, before)
                raise
        finally:
            os.close(handle)
