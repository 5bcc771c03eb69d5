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
        _make_folder(path.parent)
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
    _settle(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Publish `content` as the file `path`, durably."""
    write_file(path, lambda file: file.write(content))


@contextlib.contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder to fill; on leaving it is published as `path`, on an error it is removed.

    Raises InputError when `path` exists and `replace` is False, or when the disk refuses (full, read-only).
    """
    with _told(path):
        if not replace:
            _refuse_existing(path)
        _make_folder(path.parent)
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL_PREFIX, dir=path.parent))
        try:
            yield partial
            partial.chmod(_permissions(0o777))
            _sync_tree(partial)
            _publish_folder(partial, path, replace)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise InputError(f"{path} exists already: choose another name, or pass --force to replace it")


def _publish_folder(partial: Path, path: Path, replace: bool) -> None:
    """Rename `partial` to `path`; what stood there is moved aside first, and back again if the rename fails."""
    if not replace:
        # Asked again: another process may have published the same name meanwhile.
        _refuse_existing(path)
    aside = Path(tempfile.mkdtemp(prefix=PARTIAL_PREFIX, dir=path.parent))
    old = aside / path.name
    try:
        if replace and os.path.lexists(path):
            path.replace(old)
        partial.replace(path)
    except BaseException:
        if os.path.lexists(old):
            old.replace(path)
        aside.rmdir()
        raise
    try:
        _settle(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, each name flushed: a file is no safer than the folders above it."""
    if folder.is_dir() or folder == folder.parent:
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_folder(folder.parent)


def _settle(path: Path) -> None:
    """Flush a name that was just published: until then a power cut may bring back what it named before."""
    try:
        fsync_folder(path.parent)
    except OSError as error:
        raise InputError(f"{path} was written, but may not survive a power cut: {error.strerror or error}") from error


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
