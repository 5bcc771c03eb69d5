"""The state of the project that a result was measured on."""

from __future__ import annotations

import subprocess


def revision() -> str:
    """The commit, with `-dirty` behind it when files differ from it; `unknown` outside a clone."""
    done = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"
