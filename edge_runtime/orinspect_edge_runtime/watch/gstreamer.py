"""Cameras through GStreamer: a gst-launch-1.0 process writes raw pictures to a pipe.

CSI cameras (nvarguscamerasrc) and the hardware decoder (nvv4l2decoder) exist only as elements of it. In a process of
its own a driver that crashes or hangs takes nothing with it. Pictures nobody reads are dropped by the leaky queue.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import IO

import numpy as np

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import Pixels
from orinspect_edge_runtime.watch.config import SourceConfig

# Told to be slow, not dead: so often a reader looks whether it was told to end.
SLICE_S = 0.05
TAIL = "! videoconvert ! video/x-raw,format=RGB,width={},height={} ! queue leaky=downstream max-size-buffers=2 ! fdsink"


def pictures(config: SourceConfig, name: str) -> Iterator[Pixels | None]:
    """Pictures, uint8 RGB [height, width, 3], until the pipeline ends; None now and then while there is none.

    Raises InputError: the pipeline ends with an error, is silent for longer than timeout_s, or leaves a short picture.
    """
    width, height = config.size
    # GStreamer begins each row at a multiple of four bytes.
    stride = (3 * width + 3) // 4 * 4
    with tempfile.TemporaryFile() as errors, _started(config, errors) as process:
        try:
            for content in _blocks(process, stride * height, config.timeout_s):
                if content is None:
                    yield None
                else:
                    rows = np.frombuffer(content, np.uint8).reshape(height, stride)
                    yield np.ascontiguousarray(rows[:, : 3 * width].reshape(height, width, 3))
        except TimeoutError as error:
            raise InputError(f"{name}: no picture for {config.timeout_s:g} s") from error
        finally:
            # SIGKILL: a pipeline that hangs in a driver does not listen to less.
            process.kill()
            process.wait()
        raise InputError(f"{name}: the pipeline ended ({_last_line(errors) or 'without a word'})")


def command(config: SourceConfig) -> list[str]:
    """The command line. Raises InputError: GStreamer's tools are missing, or the pipeline's quotes do not match."""
    tools = [shutil.which(name) for name in ("setpriv", "gst-launch-1.0")]
    if tools[0] is None or tools[1] is None:
        raise InputError("gst-launch-1.0 or setpriv is missing: run  apt install gstreamer1.0-tools util-linux")
    try:
        pipeline = shlex.split(f"{config.location} {TAIL.format(*config.size)}")
    except ValueError as error:
        raise InputError(f"the pipeline {config.location!r} cannot be read ({error})") from error
    # The kernel kills it when the thread that reads is gone, by kill -9 as well.
    return [tools[0], "--pdeathsig", "KILL", tools[1], "-q", *pipeline]


def _started(config: SourceConfig, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(config), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, bufsize=0)


def _blocks(process: subprocess.Popen[bytes], size: int, timeout_s: float) -> Iterator[bytearray | None]:
    """Blocks of `size` bytes until the end. Raises TimeoutError, InputError when it ends within a block."""
    assert process.stdout is not None
    handle, block, filled = process.stdout.fileno(), bytearray(size), 0
    ready = select.poll()
    ready.register(handle, select.POLLIN | select.POLLHUP)
    heard = time.monotonic()
    while True:
        if not ready.poll(SLICE_S * 1e3):
            if time.monotonic() > heard + timeout_s:
                raise TimeoutError
            yield None
            continue
        count = os.readv(handle, [memoryview(block)[filled:]])
        if not count:
            return
        heard, filled = time.monotonic(), filled + count
        if filled == size:
            yield block
            block, filled = bytearray(size), 0


def _last_line(errors: IO[bytes]) -> str:
    """The first line with ERROR that the pipeline wrote, or its last one."""
    errors.seek(0)
    lines = errors.read(100_000).decode(errors="replace").split("\n")
    told = [line.strip() for line in lines if "ERROR" in line] or [line.strip() for line in lines[::-1] if line.strip()]
    return told[0][:200] if told else ""
