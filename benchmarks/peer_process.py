"""The other libraries, each in an environment and a process of its own, which answers the requests of its script."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TORCH = ["torch==2.14.1", "torchvision==0.29.1"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Library:
    """script: answers requests, in this folder. packages: what pip installs, a call each. kinds: of exported model."""

    script: str
    packages: tuple[list[str], ...]
    kinds: tuple[str, ...]


LIBRARIES = {
    "anomalib": Library("anomalib_peer.py", (TORCH, ["anomalib[openvino]==2.7.0"]), ("torch", "openvino")),
    # Its extras only add torch with torchaudio, which nothing of it imports. safetensors is what our weights are read by.
    "anomavision": Library(
        "anomavision_peer.py", (TORCH, ["anomavision==3.6.2", "safetensors"]), ("torch", "onnx", "openvino")
    ),
}


def peer_environment(folder: Path, library: str) -> Path:
    """Python of the environment with a library; installed when it is not there.

    Raises CalledProcessError, with what pip said, when it cannot be.
    """
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        for packages in LIBRARIES[library].packages:
            subprocess.run(
                [python, "-m", "pip", "install", "-q", *packages], check=True, stderr=subprocess.PIPE, text=True
            )
        (folder / "complete").touch()
    return python


class Peer:
    """A library's process: `ask` sends a request of its script and waits for the answer."""

    def __init__(self, python: Path, folder: Path, library: str = "anomalib") -> None:
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **ONE_THREAD}
        self.library, self.kinds = library, LIBRARIES[library].kinds
        self._log = (folder / "peer.log").open("a")
        self._process = subprocess.Popen(
            [python, Path(__file__).with_name(LIBRARIES[library].script)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment, cwd=folder, start_new_session=True,
        )  # fmt: skip

    def ask(self, do: str, **request: Any) -> Any:
        """The answer. Raises RuntimeError with what the library said when it could not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "its process died; see peer.log"}
        if "error" in answer:
            raise RuntimeError(f"{self.library}, {do}: {answer['error']}")
        return answer

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        # With what it started: OpenVINO's telemetry waits in a process of its own for a network that may not be there.
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()
        self._log.close()
