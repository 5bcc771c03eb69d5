"""The timing cache: what the builder measured on this module, kept so that the next build is quick.

One file a module, L4T release and TensorRT version, because measurements of another are worthless or refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.device import Device

FOLDER = "timing"


def cache_file(folder: Path, device: Device) -> Path:
    """Where the cache of this device lies inside a bundle's engines folder. device.tensorrt must be known."""
    parts = (device.module or "no-module", device.l4t or "no-l4t", device.library, device.tensorrt)
    return folder / FOLDER / ("_".join(re.sub(r"[^A-Za-z0-9.-]", "-", part) for part in parts) + ".cache")


def attach(config: Any, file: Path) -> bool:
    """Give a builder configuration the cache of a file, or an empty one. Returns whether measurements were taken over.

    A damaged or foreign cache is no error: the builder measures again.
    """
    content = file.read_bytes() if file.exists() else b""
    cache = config.create_timing_cache(content)
    if cache is not None and config.set_timing_cache(cache, False):
        return bool(content)
    config.set_timing_cache(config.create_timing_cache(b""), False)
    return False


def save(config: Any, file: Path) -> None:
    """Write what the builder measured, durably."""
    cache = config.get_timing_cache()
    if cache is not None:
        durable.write_bytes(file, bytes(cache.serialize()))
