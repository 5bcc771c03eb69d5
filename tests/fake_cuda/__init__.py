"""The fake driver from Python: compile it, load it in place of NVIDIA's, read its counters, make it fail.

Load it only in a process of its own: whatever looks for CUDA afterwards finds it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

DEVICE_MEMORY, HOST_MEMORY, STREAMS, EVENTS, GRAPHS, CONTEXTS = range(6)
KINDS = ("device memory", "host memory", "streams", "events", "graphs", "contexts")
OUT_OF_MEMORY, UNKNOWN = 2, 999


def compiler() -> str | None:
    """The C compiler, when there is one."""
    return shutil.which("cc")


def compile_driver(folder: Path) -> Path:
    """Build libcuda.so.1 in a folder."""
    library = folder / "libcuda.so.1"
    source = Path(__file__).with_name("libcuda.c")
    flags = ("-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libcuda.so.1", "-pthread")
    subprocess.run(["cc", *flags, "-o", str(library), str(source), "-ldl"], check=True)
    return library


class FakeDriver:
    """The loaded library's counters and switches."""

    def __init__(self, library: Path) -> None:
        # pycuda names functions that are never called here: bind each when it is called.
        sys.setdlopenflags(os.RTLD_LAZY)
        self._library = ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        for name in ("fake_live", "fake_used", "fake_all_calls", "fake_calls"):
            getattr(self._library, name).restype = ctypes.c_long
        self._library.fake_failed.restype = ctypes.c_char_p
        self._library.fake_reachable.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._library.cuLaunchHostFunc.argtypes = [ctypes.c_void_p] * 3

    def live(self) -> dict[str, int]:
        """Live objects by kind, contexts not among them (a primary context may outlive what it served)."""
        return {name: n for i, name in enumerate(KINDS[:CONTEXTS]) if (n := int(self._library.fake_live(i)))}

    def contexts(self) -> int:
        """Live contexts."""
        return int(self._library.fake_live(CONTEXTS))

    def used(self) -> int:
        """Bytes allocated now."""
        return int(self._library.fake_used())

    def calls(self, name: str = "") -> int:
        """Calls of one function so far, or of all."""
        return int(self._library.fake_calls(name.encode()) if name else self._library.fake_all_calls())

    def allocations(self) -> int:
        """Calls so far that make something which must be freed."""
        makers = ("cuMemAlloc_v2", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate", "cuGraphInstantiateWithFlags")
        return sum(self.calls(name) for name in makers)

    def depth(self) -> int:
        """Contexts on this thread's stack."""
        return int(self._library.fake_depth())

    def fail(self, nth: int, name: str = "", code: int = OUT_OF_MEMORY) -> None:
        """The nth call from now (of one function, or of any) fails; 0: none."""
        self._library.fake_fail(name.encode(), ctypes.c_long(nth), code)

    def failed(self) -> str:
        """The function that failed on demand since the last `fail`."""
        return str(self._library.fake_failed().decode())

    def forget(self) -> None:
        """Free everything that is left."""
        self._library.fake_forget()

    def set_capacity(self, bytes_: int) -> None:
        """Memory of the device."""
        self._library.fake_set_capacity(ctypes.c_long(bytes_))

    def reachable(self, address: int, bytes_: int) -> bool:
        """Whether the device could read these bytes."""
        return bool(self._library.fake_reachable(address, bytes_))

    def launch(self, stream: int, function: object) -> int:
        """cuLaunchHostFunc with a ctypes callback."""
        return int(self._library.cuLaunchHostFunc(stream, ctypes.cast(function, ctypes.c_void_p), None))
