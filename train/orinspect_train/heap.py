"""The process's heap: memory that one training step frees is there for the next.

glibc gives large pieces back to the system when they are freed, and the system clears each page of them anew when they are
asked for again. Every tensor of a step is such a piece: of a training on a processor this took a tenth to a fifth.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

# malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = -1


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Within it this process, and those it forks, keep what they free; at the end it goes back to the system at once.

    Also a decorator. Does nothing where libc is not glibc. glibc's own settings are not restored: it cannot be asked for
    them, and a `with` inside another would undo the outer one.
    """
    keep_freed_memory()
    try:
        yield
    finally:
        if (libc := _glibc()) is not None:
            libc.malloc_trim(0)


def keep_freed_memory() -> None:
    """The same to the end of the process."""
    if (libc := _glibc()) is not None:
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, NEVER)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    # musl, which Linux may have too, knows no mallopt.
    return libc if hasattr(libc, "mallopt") else None
