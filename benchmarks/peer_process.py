"""anomalib in an environment and a process of its own, which answers the requests of anomalib_peer.py."""

from __future__ import annotations

import json
import os
import subprocess
import venv
from pathlib import Path
from typing import Any

PEER = Path(__file__).with_name("anomalib_peer.py")
PACKAGES = (["torch==2.14.1", "torchvision==0.29.1"], ["anomalib[openvino]==2.7.0"])
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
KINDS = ("torch", "openvino")


def peer_environment(folder: Path) -> Path:
    """Python of the environment with anomalib; installed when it is not there."""
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        for packages in PACKAGES:
            subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        (folder / "complete").touch()
    return python


class Peer:
    """anomalib's process: `ask` sends a request of anomalib_peer.py and waits for the answer."""

    def __init__(self, python: Path, folder: Path) -> None:
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **ONE_THREAD}
        self._log = (folder / "peer.log").open("a")
        self._process = subprocess.Popen(
            [python, PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env=environment, cwd=folder,
        )  # fmt: skip

    def ask(self, do: str, **request: Any) -> Any:
        """The answer. Raises RuntimeError with what anomalib said when it could not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "anomalib's process died; see peer.log"}
        if "error" in answer:
            raise RuntimeError(f"anomalib, {do}: {answer['error']}")
        return answer

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()
