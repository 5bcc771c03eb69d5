"""What the computer is that engines run on, as far as an engine depends on it.

This package knows no boards: whoever does (the package for Jetson boards) offers a reader through the entry-point
group `orinspect.device`, a function without arguments that returns a Device.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from orinspect_edge_runtime.errors import InputError

READERS = "orinspect.device"
TENSORRT, RECORDING = "tensorrt", "recording-for-tests"
# Strong typing with explicit Q/DQ needs TensorRT 10; 10.3 is the oldest one on a Jetson (JetPack 6.1).
OLDEST_TENSORRT = (10, 3)


@dataclass(frozen=True)
class Device:
    """A computer with a GPU. Empty text and zero: not known, or not there (a desktop has no module and no L4T).

    module: part number, "p3767-0000". l4t: "36.4.3". sm: compute capability, "8.7". sm_count: streaming
    multiprocessors switched on now. power_mode: name of the nvpmodel mode. free_mib: memory available now.
    dla_cores: 0 where there is none. library: TENSORRT, or RECORDING for the stand-in of this project's own tests.
    """

    module: str = ""
    module_name: str = ""
    l4t: str = ""
    tensorrt: str = ""
    cuda: str = ""
    sm: str = ""
    sm_count: int = 0
    power_mode: str = ""
    free_mib: int = 0
    dla_cores: int = 0
    library: str = TENSORRT

    @property
    def words(self) -> str:
        """The device for people."""
        return self.module_name or self.module or "this computer"


def this_device() -> Device:
    """The device this runs on: from the installed reader, else only what any Linux says."""
    for point in entry_points(group=READERS):
        found = point.load()()
        if not isinstance(found, Device):
            raise InputError(f"the device reader {point.value} is broken: reinstall orinspect")
        return found if found.free_mib else dataclasses.replace(found, free_mib=free_memory_mib())
    return Device(free_mib=free_memory_mib())


def with_library(device: Device, trt: Any) -> Device:
    """The device with the TensorRT that was really imported: in a container it is not the one of the system.

    Raises InputError when it is older than OLDEST_TENSORRT.
    """
    version = supported_version(trt)
    is_recording = getattr(trt, "IS_RECORDING_FOR_TESTS", False)
    return dataclasses.replace(device, tensorrt=version, library=RECORDING if is_recording else TENSORRT)


def supported_version(trt: Any) -> str:
    """Version of a TensorRT module. Raises InputError for TensorRT 8 (JetPack 5 and 6.0) and other old ones."""
    version = str(trt.__version__)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if trt.__name__.startswith("tensorrt_rtx") or numbers >= OLDEST_TENSORRT:
        return version
    raise InputError(
        f"TensorRT {version} is too old: orinspect needs 10.3 or newer, which JetPack 6.1 and later bring; "
        "upgrade JetPack, or use the onnxruntime backend"
    )


def free_memory_mib() -> int:
    """MemAvailable of /proc/meminfo in MiB; 0 where there is none. On a Jetson CPU and GPU share it."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123  a /proc file, read line by line
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) // 1024
    except OSError:
        pass
    return 0
