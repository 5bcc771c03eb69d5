"""Where the time of a whole verdict goes: decode, resize, engine, post; and the copies where the backend can tell."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orinspect_edge_runtime.backends import Backend
from orinspect_edge_runtime.bench.subject import Subject
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.preprocess import PreprocessSpec, fit_to_model, list_images, read_frame

MOST_IMAGES = 50
LEAST_PASSES = 20
Outputs = dict[str, NDArray[np.float32]]


@runtime_checkable
class TellsCopies(Protocol):
    """A backend that knows how long the copies of a call took."""

    def run_in_parts(self, frames: NDArray[np.uint8]) -> tuple[Outputs, dict[str, float]]:
        """As `run`, with the seconds of `copy_in`, `engine` and `copy_out`."""


def image_files(folder: Path | None, spec: PreprocessSpec) -> list[Path]:
    """Up to MOST_IMAGES images of the folder, each read once: a bad one is told before the measurement, not after.

    Raises InputError: no images there; ImageError: one that cannot be read.
    """
    if folder is None:
        return []
    files = list_images([folder])[:MOST_IMAGES]
    for file in files:
        read_frame(file, spec)
    return files


def measure_stages(
    bundle: Bundle, subject: Subject, backends: Mapping[str, Backend], images: list[Path], golden: NDArray[np.uint8]
) -> dict[str, Any] | None:
    """Median milliseconds of each stage by precision; None without images and without a recipe.

    With a recipe and no images, a golden frame stands in as a PNG file of the model's size. Files lie in the page
    cache. `post` (group, probability, threshold) is only there with a recipe.
    """
    if images:
        return _measure_files(bundle, subject, backends, images, "image files, in the page cache")
    if subject.recipe is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "golden.png"
        Image.fromarray(golden).save(file)
        return _measure_files(bundle, subject, backends, [file], "a golden frame as PNG at the model's size")


def _measure_files(
    bundle: Bundle, subject: Subject, backends: Mapping[str, Backend], images: list[Path], source: str
) -> dict[str, Any]:
    passes = -(-LEAST_PASSES // len(images))
    found: dict[str, Any] = {}
    for precision, backend in backends.items():
        _one(bundle, subject, backend, images[0])
        rows = [_one(bundle, subject, backend, image) for _ in range(passes) for image in images]
        found[precision] = {f"{name}_ms": float(np.median([row[name] for row in rows])) * 1e3 for name in rows[0]}
    return {"images": len(images), "source": source, "p50": found}


def _one(bundle: Bundle, subject: Subject, backend: Backend, image: Path) -> dict[str, float]:
    """Seconds of each stage of one image, and of all together."""
    spec = bundle.manifest.preprocess
    marks = [time.perf_counter()]
    frame = read_frame(image, spec, reduced=True)
    marks.append(time.perf_counter())
    pixels = fit_to_model(frame.pixels, spec)[None]
    marks.append(time.perf_counter())
    parts: dict[str, float] = {}
    if isinstance(backend, TellsCopies):
        outputs, parts = backend.run_in_parts(pixels)
    else:
        outputs = backend.run(pixels)
    marks.append(time.perf_counter())
    seconds = {"decode": marks[1] - marks[0], "resize": marks[2] - marks[1]}
    seconds |= parts or {"engine": marks[3] - marks[2]}
    if subject.recipe is not None:
        Detector(bundle, subject.recipe, backend).verdict(outputs, frame.source)
        seconds["post"] = time.perf_counter() - marks[3]
    return seconds | {"total": time.perf_counter() - marks[0]}
