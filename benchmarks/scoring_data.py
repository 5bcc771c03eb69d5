"""Features of the image sets of the studies of scoring, by the fp32 graph of an ImageNet encoder that was not adapted.

With a cache folder they are kept as NAME.npz and not computed again; delete it when the encoder or the shifts change.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import textures
from fashion import read_gray
from numpy.typing import NDArray
from PIL import Image

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.backends import Backend, open_backend
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.features import Features, extract
from orinspect_edge_runtime.heads import neutral_inputs
from orinspect_edge_runtime.preprocess import Frame, Pixels, PreprocessSpec, frame_of_array, read_frame
from orinspect_edge_runtime.tiling import view_of
from orinspect_train.solar_cells import Cell


class Encoder:
    """A bundle made from the ImageNet weights as they are, in `folder`, when it is first needed.

    size: of the images that the encoder sees, pixels a side. second_scale: of `orinspect export`.
    """

    def __init__(
        self, folder: Path, cache: Path | None = None, size: int = 192, second_scale: float | None = None
    ) -> None:
        self._folder, self._cache, self._size, self._second_scale = folder, cache, size, second_scale
        self._opened: dict[str, Backend] = {}

    @property
    def spec(self) -> PreprocessSpec:
        """How a picture becomes a frame of the bundle."""
        return self.bundle.manifest.preprocess

    @functools.cached_property
    def bundle(self) -> Bundle:
        """The exported bundle, fp32."""
        images, run, bundle = (self._folder / name for name in ("images", "run", "bundle"))
        images.mkdir(parents=True)
        for number, pixels in enumerate(textures.render("granite", 64, 64, 2).good):
            Image.fromarray(pixels).save(images / f"{number}.png")
        scale = [] if self._second_scale is None else ["--second-scale", str(self._second_scale)]
        _orinspect("pretrain", str(images), "--out", str(run), "--epochs", "0", "--size", str(self._size))
        calibrated = ("--precision", "fp32", "--calibration", str(images))
        _orinspect("export", str(run), "--out", str(bundle), *calibrated, *scale)
        return Bundle.open(bundle)

    def backend(self, head: str) -> Backend:
        """The graph of a head, without a recipe."""
        if head not in self._opened:
            spec = self.bundle.manifest.graph("fp32", head)
            self._opened[head] = open_backend(self.bundle.read(spec.file), spec, threads=1, bundle=self.bundle.path)
            self._opened[head].set_inputs(neutral_inputs(head, self.bundle.manifest.encoder))
        return self._opened[head]

    def features(self, pictures: Iterable[Pixels]) -> Features:
        """Features of uint8 [h, w, 3] pictures."""
        frames: Iterable[Frame] = map(frame_of_array, pictures)
        return extract(self.backend("patchcore"), frames, view_of(None, self.bundle.manifest))

    def kept(self, name: str, make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        """Arrays out of the cache, or made now and put there."""
        if self._cache is None:
            return make()
        file = self._cache / f"{name}.npz"
        if not file.exists():
            arrays = make()
            durable.write_file(file, lambda to: np.savez(to, **arrays))  # type: ignore[arg-type]
        with np.load(file) as entries:
            return dict(entries)


@dataclass(frozen=True)
class Labelled:
    """Features of images and what they are: bad is bool [N], kinds is a name for each."""

    features: Features
    bad: NDArray[np.bool_]
    kinds: NDArray[np.str_]


def rows(features: Features, index: NDArray[np.intp] | NDArray[np.bool_]) -> Features:
    """Some of the images."""
    return Features(features.embedding[index], features.patches[index])


def solar_cells(encoder: Encoder, cells: list[Cell], name: str) -> Labelled:
    """ELPV: good cells (probability 0) and defective ones (2/3 and more). name: of the cache's file."""
    used = [cell for cell in cells if cell.probability == 0 or cell.probability > 0.6]

    def make() -> dict[str, NDArray[Any]]:
        found = encoder.features(read_frame(cell.path, encoder.spec).pixels for cell in used)
        return {"embedding": found.embedding, "patches": found.patches}

    kept = encoder.kept(name, make)
    bad = np.array([cell.probability > 0 for cell in used])
    return Labelled(
        Features(kept["embedding"], kept["patches"].astype(np.float32)), bad, np.array([cell.kind for cell in used])
    )


def fashion(encoder: Encoder, per_class: int, part: str) -> Labelled:
    """Fashion-MNIST (apt: dataset-fashion-mnist): the first images of each of ten classes of `train` or `t10k`."""
    images, labels = read_gray(part)
    index = np.concatenate([np.flatnonzero(labels == number)[:per_class] for number in range(10)])
    pictures = (np.repeat(images[i][:, :, None], 3, axis=2) for i in index)
    return Labelled(encoder.features(pictures), np.zeros(len(index), bool), labels[index].astype(str))


def _orinspect(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "orinspect_edge_runtime.cli", *arguments], check=True, stdout=sys.stderr)
