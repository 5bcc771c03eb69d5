"""The thread that fills the slot, so that frame n+1 is decoded while frame n is judged."""

from __future__ import annotations

import threading

from orinspect_edge_runtime.errors import ImageError
from orinspect_edge_runtime.preprocess import Frame, PreprocessSpec
from orinspect_edge_runtime.watch.config import SourceConfig
from orinspect_edge_runtime.watch.picture import CameraWatch, RateCap, cut
from orinspect_edge_runtime.watch.slot import Item, Slot
from orinspect_edge_runtime.watch.sources import SOURCES


class Reader:
    """Reads a source into `slot` from `start()` on. error: what ended it, None when it ended by itself."""

    def __init__(self, config: SourceConfig, spec: PreprocessSpec) -> None:
        self.slot = Slot(keep_newest=config.kind == "camera")
        self.error: Exception | None = None
        self.alarm = ""
        self._config, self._spec = config, spec
        self._cap, self._watch = RateCap(config.fps_max if config.kind == "camera" else 0), CameraWatch(config)
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End it. A camera that hangs in its driver is left behind: the thread is a daemon."""
        self.slot.end()
        self._thread.join(timeout_s)

    @property
    def trouble(self) -> str:
        """`lost: ...`, `black`, `frozen` or nothing."""
        return self.slot.alarm or self.alarm

    def _run(self) -> None:
        try:
            for item in SOURCES[self._config.kind](self._config, self._spec, self.slot):
                if isinstance(item, Frame) and not self._cap.lets(item.captured_at):
                    continue
                if not self.slot.put(self._prepared(item)):
                    return
        except Exception as error:  # noqa: BLE001  the loop raises it again, in its own thread
            self.error = error
        finally:
            self.slot.end()

    def _prepared(self, item: Item) -> Item:
        if isinstance(item, ImageError):
            return item
        try:
            frame = cut(item, self._config)
        except ImageError as error:
            return error
        self.alarm = self._watch.alarm(frame)
        return frame
