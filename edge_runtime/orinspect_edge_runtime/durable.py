"""Durable writes: a file or folder appears under its name whole, or not at all.

Every write goes to a temporary sibling, is flushed to the disk (fsync of the file and of its folder) and only then
renamed: a symlink or rename without fsync was seen to leave a truncated model live after a power cut.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from orinspect_edge_runtime.errors import InputError

PARTIAL_PREFIX = ".partial-"


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries (names) to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` with a binary file, then publish it as `path`. On any error `path` is as it was before."""
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=PARTIAL_PREFIX, dir=path.parent)
        partial = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            partial.chmod(_permissions(0o666))
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Publish `content` as the file `path`, durably."""
    write_file(path, lambda file: file.write(content))


@contextlib.contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder to fill; on leaving it is published as `path`, on an error it is removed.

    Raises InputError when `path` exists and `replace` is False, or when the disk refuses (full, read-only).
    """
    if not replace and path.exists():
        raise InputError(f"{path} exists already: choose another name, or pass --force to replace it")
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL_PREFIX, dir=path.parent))
        try:
            yield partial
            partial.chmod(_permissions(0o777))
            _sync_tree(partial)
            _publish_folder(partial, path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _publish_folder(partial: Path, path: Path) -> None:
    """Rename `partial` to `path`; a folder that stood there is moved aside first and removed last."""
    old = None
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=PARTIAL_PREFIX, dir=path.parent))
        path.replace(old)
    partial.replace(path)
    fsync_folder(path.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            with Path(root, name).open("rb") as file:
                os.fsync(file.fileno())
        fsync_folder(Path(root))


def _permissions(wanted: int) -> int:
    """`wanted` less the process's umask: temporary files are private, published ones are not."""
    mask = os.umask(0)
    os.umask(mask)
    return wanted & ~mask


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one line that names the path."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; nothing was changed") from error
