"""An importable TensorRT 10.3 of the recording kind: `library` for processes of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import fake_tensorrt
from fake_tensorrt import recording

_stub = fake_tensorrt.load(os.environ.get("RECORDED_VERSION", "tensorrt-10.3.0"))


def _misbehave(builder: object, network: object, config: object) -> bool:
    """Play what RECORDED_FATE says: the fates of builds that the tests want to see."""
    workspace_mib = config._pools["WORKSPACE"] >> 20  # type: ignore[attr-defined]
    fate, _, limit = os.environ.get("RECORDED_FATE", "").partition(":")
    if fate and limit and workspace_mib <= int(limit):
        return False
    if fate == "killed":
        os.kill(os.getpid(), 9)
    if fate == "abort":
        os.abort()
    if fate == "exit":
        sys.stderr.write("terminate called after throwing\n")
        os._exit(3)
    if fate == "memory":
        raise MemoryError
    if fate == "sleep":
        import time

        time.sleep(600)
    if fate == "eat":
        # Really too much: more than the limit that the test has set for the process.
        bytearray(workspace_mib * 2**20)
    return fate == "none"


recording.on_build = _misbehave
recording.error_of_outputs = float(os.environ.get("RECORDED_ERROR", "0"))
if "FAKE_CUDA" in os.environ:
    import fake_cuda

    recording.launch = fake_cuda.FakeDriver(Path(os.environ["FAKE_CUDA"])).launch
# Also for a module of another name that takes everything over from this one.
NAMES = {name: value for name, value in vars(_stub).items() if name != "__name__"}
globals().update(NAMES)
