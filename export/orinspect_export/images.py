"""Which images an export looks at: some to calibrate and record, others, seen by neither, to compare precisions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import PreprocessSpec, Skipped, fit_to_model, list_images, read_frames
from orinspect_export.activations import Frames

MOST_CALIBRATION, MOST_HELD_OUT = 64, 96
FEWEST = 16
# Grey levels of standard deviation below which a picture shows nothing: a covered lens, a lamp that is off.
LEAST_CONTRAST = 2.0


@dataclass(frozen=True)
class ExportImages:
    """calibration, held_out: uint8 frames [N, H, W, 3], no two alike. names: of the calibration images, in order."""

    calibration: Frames
    held_out: Frames
    names: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def choose_images(folder: Path, spec: PreprocessSpec, seed: int = 0) -> ExportImages:
    """Draw up to 64 images to calibrate on and up to 96 to hold out, the same ones for the same folder and seed.

    Blank images are left out. Raises InputError: no such folder, too many unreadable files, mostly blank images, or
    fewer than 16 different ones.
    """
    paths = list_images([folder])
    rng = np.random.default_rng(seed)
    drawn = [paths[index] for index in rng.permutation(len(paths))[: 2 * (MOST_CALIBRATION + MOST_HELD_OUT)]]
    skipped: list[Skipped] = []
    blank: list[Skipped] = []
    different: dict[bytes, tuple[str, Frames]] = {}
    for frame in read_frames(drawn, spec, skipped):
        pixels = fit_to_model(frame.pixels, spec)
        if is_blank(pixels):
            blank.append(Skipped(Path(frame.source), f"{frame.source}: blank, brightness {pixels.mean():.0f} all over"))
            continue
        different.setdefault(hashlib.sha256(pixels.tobytes()).digest(), (_name(Path(frame.source), folder), pixels))
        if len(different) == MOST_CALIBRATION + MOST_HELD_OUT:
            break
    if len(blank) > len(different):
        raise InputError(
            f"{len(blank)} of {len(blank) + len(different)} images to calibrate on show nothing ({blank[0].reason}): "
            "is the lens covered or the lamp off? Take images of parts"
        )
    if len(different) < FEWEST:
        raise InputError(f"{folder}: {len(different)} different images; an export needs {FEWEST}, 160 are better")
    names, frames = zip(*different.values(), strict=True)
    count = min(MOST_CALIBRATION, len(frames) * 3 // 4, max(len(frames) // 2, FEWEST * 3 // 4))
    return ExportImages(np.stack(frames[:count]), np.stack(frames[count:]), tuple(names[:count]), (*skipped, *blank))


def is_blank(pixels: Frames) -> bool:
    """Whether a frame [H, W, 3] shows nothing: every pixel nearly as bright as the next."""
    return float(pixels.mean(axis=2).std()) < LEAST_CONTRAST


def _name(path: Path, folder: Path) -> str:
    """Of an image inside the folder: no path of this computer ends up in a bundle."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
