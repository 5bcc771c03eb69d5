"""Teach mode: the next N frames are good parts; a recipe is fitted on them in a process of its own, then switched to.

The running recipe judges until the new one has reproduced golden. Whatever fails or is killed on the way leaves it, the
bundle and the collected frames (PNG files, usable with `orinspect fit`) as they are.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_edge_runtime.fit import FEWEST_IMAGES
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.picture_file import to_png
from orinspect_edge_runtime.preprocess import Pixels
from orinspect_edge_runtime.recipe import check_name

LOG = logging.getLogger("orinspect.watch")
MOST_FRAMES, LONGEST_PAUSE_S = 2000, 3600.0
# Frames that wait for the disk; more are not taken.
QUEUE = 8
IDLE, COLLECTING, FITTING, DONE, FAILED, CANCELLED = "idle", "collecting", "fitting", "done", "failed", "cancelled"


@dataclass(frozen=True)
class Lesson:
    """What to teach. frames: how many good ones. every_s: least time between two. go_on: keep those of an earlier try."""

    name: str
    frames: int = 50
    every_s: float = 0.5
    replace: bool = False
    go_on: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)
        if not FEWEST_IMAGES <= self.frames <= MOST_FRAMES:
            raise InputError(f"frames is {self.frames}: teach with {FEWEST_IMAGES} to {MOST_FRAMES} good frames")
        if not 0 <= self.every_s <= LONGEST_PAUSE_S:
            raise InputError(f"every_s is {self.every_s}: the pause between frames is 0 to {LONGEST_PAUSE_S:g} seconds")


class Teach:
    """One lesson at a time. bundle, fit_options: told when fitting begins. switch: runs the new recipe, or raises."""

    def __init__(
        self,
        bundle: Callable[[], str],
        folder: Path,
        fit_options: Callable[[], FitOptions],
        switch: Callable[[str], object],
    ) -> None:
        self._bundle, self._folder, self._fit_options, self._switch = bundle, folder, fit_options, switch
        self._lock = threading.Lock()
        self._lesson: Lesson | None = None
        self._state, self._error, self._taken, self._share, self._next = IDLE, "", 0, 0.0, 0.0
        self._frames: queue.Queue[Pixels] = queue.Queue(QUEUE)
        self._child: subprocess.Popen[str] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, lesson: Lesson) -> None:
        """Begin to collect. Raises InputError: one is under way, or its folder cannot be written."""
        with self._lock:
            if self._state in (COLLECTING, FITTING):
                raise InputError("a teach is under way: wait for it or cancel it first")
            if self._thread is not None:
                self._thread.join()
            folder = self._folder / lesson.name
            if folder.exists() and not lesson.go_on:
                shutil.rmtree(folder)
            self._taken = len(list(folder.glob("*.png")))
            self._lesson, self._error, self._share, self._next = lesson, "", 0.0, 0.0
            self._frames, self._stop = queue.Queue(QUEUE), threading.Event()
            self._state = COLLECTING
            self._thread = threading.Thread(target=self._run, args=(lesson, folder), name="teach", daemon=True)
            self._thread.start()

    def offer(self, pixels: Pixels) -> None:
        """A frame that was just judged; called by the loop, never waits."""
        if self._state != COLLECTING or self._lesson is None or time.monotonic() < self._next:
            return
        try:
            self._frames.put_nowait(pixels)
            self._next = time.monotonic() + self._lesson.every_s
        except queue.Full:
            pass

    def cancel(self) -> None:
        """End it; the frames stay until the next teach of that name."""
        self._stop.set()
        # Read once: the teach's own thread takes it away when the fit has ended.
        child = self._child
        if child is not None:
            child.kill()

    def status(self) -> dict[str, object]:
        """state, the recipe's name, frames taken and wanted, progress of the fit from 0 to 1, what went wrong."""
        lesson = self._lesson
        told = {"state": self._state, "error": self._error, "taken": self._taken, "progress": round(self._share, 3)}
        return told | {"recipe": lesson.name if lesson else "", "wanted": lesson.frames if lesson else 0}

    def _run(self, lesson: Lesson, folder: Path) -> None:
        try:
            self._collect(lesson, folder)
            self._state = FITTING
            self._fit(lesson, folder)
            self._switch(lesson.name)
            self._state = DONE
            LOG.info("taught recipe %s on %d frames", lesson.name, self._taken)
        except Exception as error:  # noqa: BLE001  whatever it was: said, and the old recipe goes on
            self._error = "" if self._stop.is_set() else " ".join(str(error).split()) or type(error).__name__
            self._state = CANCELLED if self._stop.is_set() else FAILED
            LOG.warning("teach of %s %s: %s", lesson.name, self._state, self._error)

    def _collect(self, lesson: Lesson, folder: Path) -> None:
        while self._taken < lesson.frames:
            if self._stop.is_set():
                raise InputError("cancelled")
            try:
                pixels = self._frames.get(timeout=0.1)
            except queue.Empty:
                continue
            durable.write_bytes(folder / f"{self._taken:05d}.png", to_png(pixels, quick=True))
            self._taken += 1

    def _fit(self, lesson: Lesson, folder: Path) -> None:
        """Fit in a child process: its numpy work must not hold this process's interpreter lock. Raises CheckFailed."""
        options = json.dumps(dataclasses.asdict(self._fit_options()))
        command = [sys.executable, "-m", "orinspect_edge_runtime.watch.http.teacher", self._bundle(), str(folder)]
        with tempfile.TemporaryFile("w+") as errors:
            # Not a pipe: nobody reads it before the end, and a full one would stop the child.
            with subprocess.Popen(
                [*command, lesson.name, options], stdout=subprocess.PIPE, stderr=errors, text=True
            ) as child:
                self._child = child
                if self._stop.is_set():
                    child.kill()
                for line in child.stdout or ():
                    self._share = float(line)
            errors.seek(0)
            told = errors.read().strip().splitlines()
        self._child = None
        if child.returncode:
            raise CheckFailed(f"fitting failed ({told[-1] if told else f'exit code {child.returncode}'})")
