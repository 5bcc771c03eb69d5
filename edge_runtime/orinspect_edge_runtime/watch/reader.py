"""The thread that fills the slot, so that frame n+1 is decoded while frame n is judged."""

from __future__ import annotations

import threading

from orinspect_edge_runtime.errors import ImageError
from orinspect_edge_runtime.preprocess import Frame, PreprocessSpec
from orinspect_edge_runtime.watch.config import LIVE, SourceConfig
from orinspect_edge_runtime.watch.picture import CameraWatch, RateCap, cut
from orinspect_edge_runtime.watch.slot import Item, Job, Slot
from orinspect_edge_runtime.watch.sources import SOURCES
from orinspect_edge_runtime.watch.trigger import MOST_WAITING, Trigger


class Reader:
    """Reads a source into `slot` from `start()` on. error: what ended it, None when it ended by itself."""

    def __init__(self, config: SourceConfig, spec: PreprocessSpec, trigger: Trigger | None = None) -> None:
        live = config.kind in LIVE
        # Of frames that were asked for none may go while others are judged.
        self.slot = Slot(keep_newest=live, size=1 if trigger is None else MOST_WAITING)
        self.error: Exception | None = None
        self.alarm = ""
        self._config, self._spec, self._trigger = config, spec, trigger
        self._cap, self._watch = RateCap(config.fps_max if live else 0), CameraWatch(config)
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
                job = self._job(item)
                if job is not None:
                    self.slot.put(job)
                if self.slot.ended:
                    return
        except Exception as error:  # noqa: BLE001  the loop raises it again, in its own thread
            self.error = error
        finally:
            self.slot.end()

    def _job(self, item: Item) -> Job | None:
        """What is to be judged; None for a frame that nothing asked for, or that comes too soon."""
        if isinstance(item, ImageError):
            return Job(item)
        if self._trigger is not None:
            shot = self._trigger.match(item.captured_at)
            if shot is None:
                # The camera is watched between the triggers too.
                self._prepared(item)
                return None
            if self.slot.full:
                self._trigger.drop(shot)
                return None
            return Job(self._prepared(item), shot)
        return Job(self._prepared(item)) if self._cap.lets(item.captured_at) else None

    def _prepared(self, item: Frame) -> Item:
        try:
            frame = cut(item, self._config)
        except ImageError as error:
            return error
        self.alarm = self._watch.alarm(frame)
        return frame
