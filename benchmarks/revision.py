"""The state of the project that a result was measured on."""

from __future__ import annotations

import functools
import subprocess


@functools.cache
def revision() -> str:
    """The commit, with `-dirty` behind it when files differ from it; `unknown` outside a clone.

    Asked once a process: the first result that it writes would mark the next one dirty.
    """
    done = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"
