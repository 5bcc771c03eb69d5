"""What runs in every peer's own environment: requests answered a JSON line each, and what its process has spent.

Nothing of ours, and nothing beside the standard library, is imported here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def answer_requests(functions: tuple[Callable[..., Any], ...]) -> None:
    """Answer requests, which name one of these functions, until the input ends. What the libraries print goes to stderr."""
    requests = {function.__name__: function for function in (*functions, spent)}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = requests[request.pop("do")](**request)
        except Exception as error:  # noqa: BLE001  # the other side reports it
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def spent() -> dict[str, Any]:
    """CPU seconds and peak resident megabytes of this process since it began."""
    # Not getrusage: its maximum begins with that of the process this one was started from.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"cpu_s": time.process_time(), "peak_mb": int(peak.split()[1]) / 1024}
