"""Sources: each a generator of frames. Files give every frame; a camera is opened again for ever."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from orinspect_edge_runtime.errors import ImageError, InputError
from orinspect_edge_runtime.preprocess import IMAGE_SUFFIXES, Frame, Pixels, PreprocessSpec, list_images, read_frame
from orinspect_edge_runtime.watch import gstreamer
from orinspect_edge_runtime.watch.config import SourceConfig
from orinspect_edge_runtime.watch.slot import Item, Slot
from orinspect_edge_runtime.watch.video import decode

POLL_S = 0.1
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 10.0


def watched_folder(config: SourceConfig, spec: PreprocessSpec, slot: Slot) -> Iterator[Item]:
    """Images of a folder, the ones there first, then each new one once its size and time have settled."""
    folder, settled, growing, index = (
        Path(config.location),
        dict[str, tuple[int, int]](),
        dict[str, tuple[int, int]](),
        0,
    )
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    while not slot.ended:
        now = _listing(folder)
        for name in sorted(now, key=lambda n: (now[n][1], n)):
            if settled.get(name) == now[name] or growing.get(name) != now[name]:
                continue
            # Only names that are there now are remembered: memory does not grow with the months.
            settled[name] = now[name]
            yield _read(folder / name, spec, index)
            index += 1
        settled, growing = {n: s for n, s in settled.items() if n in now}, now
        slot.pause(POLL_S)


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of the images in a folder; what vanishes meanwhile, or a share that is away, counts as not there."""
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                    told = entry.stat()
                    found[entry.name] = (told.st_size, told.st_mtime_ns)
    except OSError:
        pass
    return found


def image_files(config: SourceConfig, spec: PreprocessSpec, slot: Slot) -> Iterator[Item]:
    """A file, or all images below a folder, once."""
    for index, path in enumerate(list_images([Path(config.location)])):
        if slot.ended:
            return
        yield _read(path, spec, index)


def _read(path: Path, spec: PreprocessSpec, index: int) -> Item:
    try:
        return read_frame(path, spec, index)
    except ImageError as error:
        return error


def video_file(config: SourceConfig, spec: PreprocessSpec, slot: Slot) -> Iterator[Item]:
    """Every picture of a video file. Raises InputError when it cannot be opened or decoded."""
    del spec
    if not Path(config.location).is_file():
        raise InputError(f"{config.location}: no such file")
    yield from _frames(decode(config, source_name(config)), config, slot)


def camera(config: SourceConfig, spec: PreprocessSpec, slot: Slot) -> Iterator[Item]:
    """Pictures of a camera, stream or pipeline; lost, it is opened again after a growing wait, and `slot.alarm` says so."""
    del spec
    wait_s = FIRST_WAIT_S
    while not slot.ended:
        try:
            for frame in _frames(LIVE[config.kind](config, source_name(config)), config, slot):
                wait_s, slot.alarm = FIRST_WAIT_S, ""
                yield frame
            if not slot.ended:
                slot.alarm = "lost: the stream ended"
        except InputError as error:
            slot.alarm = f"lost: {error}"
        slot.pause(wait_s)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def _frames(pictures: Iterator[Pixels | None], config: SourceConfig, slot: Slot) -> Iterator[Frame]:
    name, index = source_name(config), 0
    for pixels in pictures:
        if slot.ended:
            return
        if pixels is not None:
            yield Frame(pixels, name, index, time.time())
            index += 1


def source_name(config: SourceConfig) -> str:
    """The name in verdicts: never with the password of a URL."""
    return config.name or re.sub(r"(?<=://)[^/@]*@", "", config.location)


LIVE: dict[str, Callable[[SourceConfig, str], Iterator[Pixels | None]]] = {
    "camera": decode,
    "gstreamer": gstreamer.pictures,
}
SOURCES: dict[str, Callable[[SourceConfig, PreprocessSpec, Slot], Iterator[Item]]] = {
    "folder": watched_folder,
    "images": image_files,
    "video": video_file,
    "camera": camera,
    "gstreamer": camera,
}
