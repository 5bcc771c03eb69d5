"""A job over many images, done in parts: memory is bounded, and a job that was killed goes on where it was.

The folder of a job's parts, beside the file to be written or in the temporary folder, holds:

    lock              held by the process that is at the job
    job.json          what the job is; parts of another job are not taken up
    NUMBER.npz ...    what a part left behind; its entry `skipped` says why images of it were left out

Each part appears whole or not at all. When what they amount to is written, the folder goes.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Generic, Protocol, TypeVar

import numpy as np

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import Skipped, too_many_skipped

MOST_SKIPPED = 0.05
Image = TypeVar("Image")


@dataclass(frozen=True)
class Part(Generic[Image]):
    """Some images of a job, and the file that is left of them."""

    file: Path
    images: Sequence[Image]


# What is done to a part: it gives the content of the part's file.
Work = Callable[[Any], bytes]
# Does that to many parts; each comes with its content as it gets ready, in any order.
Run = Callable[[Iterable[Any]], Iterator[tuple[Any, bytes]]]


class Opens(Protocol):
    """What a process needs to work on parts."""

    def open(self) -> AbstractContextManager[Work]:
        """Ready to work on parts."""


class Job(Opens, Protocol):
    """What an engine (engines.py) needs to know of a job. threads: CPU threads of each process, 0 for all cores."""

    @property
    def threads(self) -> int: ...

    def elsewhere(self) -> Opens:
        """The same job without its images, to be opened in another process, maybe on another machine."""


class Parts:
    """The folder of a job's parts, held against other processes: a context manager.

    told: what the job is, plain values for JSON. images: their number. On leaving without an error the folder is removed;
    after an error it stays, and the next run of the same job goes on from it. Raises InputError when another holds it.
    done, resumed: images that are done, and how many of these an earlier run did.
    """

    def __init__(self, folder: Path, told: Mapping[str, object], images: int) -> None:
        self.folder, self.images = folder, images
        self.done = self.resumed = 0
        self._finished: list[Part[Any]] = []
        self._left_out = 0
        self._told = json.dumps(dict(told) | {"orinspect": version("orinspect")}, indent=1).encode()

    def __enter__(self) -> Parts:
        self._lock = _locked(self.folder)
        try:
            self._take_up()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def _take_up(self) -> None:
        file = self.folder / "job.json"
        same = file.exists() and file.read_bytes() == self._told
        for path in self.folder.iterdir():
            # A write that was killed leaves its temporary file.
            if path.name != "lock" and (not same or path.name.startswith(durable.PARTIAL_PREFIX)):
                path.unlink()
        if not same:
            durable.write_bytes(file, self._told)

    def finish(self, parts: Sequence[Part[Any]], run: Run, tell: Callable[[int], object]) -> None:
        """Have done what is missing of the parts. tell: called with the number of images done.

        Raises InputError, and removes the folder, when over 5 % of the job's images were left out.
        """
        missing = [part for part in parts if not part.file.exists()]
        for part in parts:
            if part.file.exists():
                self.resumed += len(part.images)
                self._count(part)
        tell(self.done)
        for part, content in run(missing):
            durable.write_bytes(part.file, content)
            self._count(part)
            tell(self.done)
        self._finished += parts

    def skipped(self) -> tuple[str, ...]:
        """Why images were left out, in the order of the parts."""
        return tuple(reason for part in self._finished for reason in _skipped(part))

    def _count(self, part: Part[Any]) -> None:
        self.done += len(part.images)
        self._left_out += len(_skipped(part))
        if self._left_out > MOST_SKIPPED * self.images:
            some = [reason for file in sorted(self.folder.glob("*.npz")) for reason in _skipped(Part(file, ()))]
            shutil.rmtree(self.folder, ignore_errors=True)
            raise too_many_skipped([Skipped(Path(), reason) for reason in some], self.images)


def _skipped(part: Part[Any]) -> list[str]:
    with np.load(part.file, allow_pickle=False) as entries:
        return [str(reason) for reason in entries["skipped"]]


def beside(out: Path) -> Path:
    """The folder for the parts of a job that writes `out`."""
    return out.with_name(f".{out.name}.parts")


def temporary(told: Mapping[str, object]) -> Path:
    """The folder for the parts of a job that writes no file: the same for the same job, and of this user alone."""
    folder = Path(tempfile.gettempdir()) / f"orinspect-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        mine = folder.lstat().st_uid == os.getuid() and stat.S_ISDIR(folder.lstat().st_mode)
    except OSError as error:
        raise InputError(
            f"cannot write {folder}: {error.strerror or error}; set TMPDIR to a folder with room"
        ) from error
    if not mine:
        raise InputError(f"{folder} belongs to somebody else: set TMPDIR to a folder of your own")
    return folder / hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def packed(*, compress: bool = False, **entries: Any) -> bytes:
    """The content of a part's file."""
    file = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(file, **entries)
    return file.getvalue()


def fingerprint(paths: Iterable[Path]) -> str:
    """Of files in their order: name, size and time of the last change; a file that is not there counts as such."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            found = path.stat()
            state = f"{found.st_size} {found.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(os.fsencode(path.absolute()) + f"\0{state}\0".encode())
    return digest.hexdigest()


def _locked(folder: Path) -> IO[bytes]:
    """The folder's lock, held. Raises InputError when another process holds it, or the folder cannot be written."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / "lock").open("ab")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise InputError(f"{folder}: another process is at a job there; wait until it ends or stop it") from error
        except OSError as error:
            raise InputError(f"cannot write {folder}: {error.strerror or error}; nothing was changed") from error
        if _is_named(lock, folder / "lock"):
            return lock
        lock.close()


def _is_named(file: IO[bytes], path: Path) -> bool:
    """Whether an open file still is what the path names; the holder before may have removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
