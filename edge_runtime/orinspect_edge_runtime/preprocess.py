"""From an image file to the uint8 frame that enters the graph: the one implementation, used to train, fit and run.

The graph itself casts and normalises; here pixels are only decoded, brought to 8-bit RGB and resized. Nothing depends
on the pixel values: two images of one camera are always treated alike.
"""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from orinspect_edge_runtime.errors import ConfigError, ImageError, InputError
from orinspect_edge_runtime.in_order import in_order

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# Only these readers are tried: Pillow has dozens more, and hands PostScript to Ghostscript, whatever the suffix says.
IMAGE_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SMALLEST_SIDE = 8
# A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size when that leaves this many times the model's: 900x900 pixels for a
# model of 224 then take 3.2 ms in place of 10.4, and the frame's pixels differ by 0.17 of 255 in the mean.
REDUCED_MARGIN = 2
# Frames decoded before they are asked for; each is held at the source's size.
DECODED_AHEAD = 4
RESIZE_MODES = ("stretch", "letterbox")
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class PreprocessSpec:
    """How an image becomes a frame of the model's size.

    height, width: of the frame, pixels. resize: `stretch` (fill the frame, aspect ratio changes) or `letterbox` (keep
    it, black bars). bit_depth: significant bits of 16-bit images (a 12-bit camera writes 0..4095 into 16 bits: 12).
    """

    height: int = 192
    width: int = 192
    resize: str = "stretch"
    bit_depth: int = 16

    def __post_init__(self) -> None:
        if self.resize not in RESIZE_MODES:
            raise ConfigError(f"resize is {self.resize!r}: use one of {', '.join(RESIZE_MODES)}")
        if not 9 <= self.bit_depth <= 16:
            raise ConfigError(f"bit_depth is {self.bit_depth}: 16-bit images have 9 to 16 significant bits")
        if min(self.height, self.width) < 32 or max(self.height, self.width) > 4096:
            raise ConfigError(f"the model's size is {self.width}x{self.height}: each side must be 32 to 4096 pixels")


@dataclass(frozen=True)
class Frame:
    """One picture on its way to a verdict.

    pixels: uint8 [height, width, 3], RGB, at the source's size or a reduced one (see read_frame). source: file or
    camera name. index: position in the source. captured_at: seconds since the epoch (of a file: its modification).
    """

    pixels: Pixels
    source: str
    index: int = 0
    captured_at: float = 0.0


def list_images(paths: list[Path]) -> list[Path]:
    """Image files among `paths`; folders are searched through, sorted by name. Raises InputError when there is none."""
    found: list[Path] = []
    for path in paths:
        try:
            found += _images_of(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not found:
        names = ", ".join(map(str, paths)) or "the list"
        raise InputError(f"{names}: no images here (looked for {' '.join(sorted(IMAGE_SUFFIXES))})")
    return found


def _images_of(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and _visible(p, path))
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    return [path]


def _visible(path: Path, root: Path) -> bool:
    return path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)


def read_frame(path: Path, spec: PreprocessSpec, index: int = 0, *, reduced: bool = False) -> Frame:
    """Decode an image file. 8- and 16-bit gray, RGB, RGBA (alpha ignored), palette and CMYK are taken.

    reduced: a large JPEG may be decoded at a part of its size that is still REDUCED_MARGIN times the model's or more.
    That saves most of the time and is enough for a verdict, but it looks a little sharper or noisier than a camera's
    frame: not for what recipes are fitted on and drift is measured by.

    Raises ImageError naming the file for anything that is not a whole picture of at least 8x8 pixels.
    """
    with _told(str(path)):
        if not path.is_file():
            # Asked of the file system first: opening a pipe would wait for ever.
            path.stat()
            raise ValueError("not a regular file")
        pixels, modified = _decode(path, spec, reduced=reduced), path.stat().st_mtime
    return Frame(_large_enough(pixels, str(path)), str(path), index, modified)


def decode_frame(content: bytes, spec: PreprocessSpec, name: str, most_pixels: int) -> Frame:
    """The frame in an image file's bytes, as `read_frame` decodes them; larger ones are refused before they are."""
    with _told(name):
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            if image.width * image.height > most_pixels:
                raise ValueError(f"{image.width}x{image.height} pixels; {most_pixels} are the most taken here")
        pixels = _decode(io.BytesIO(content), spec)
    return Frame(_large_enough(pixels, name), name, 0, time.time())


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn whatever goes wrong with an image into an ImageError of one line that names it."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata, and of over 89 megapixels; it refuses twice that.
            warnings.simplefilter("ignore")
            yield
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image (or of a kind that Pillow cannot read)") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: over 178 megapixels; cut it into tiles first") from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name}: cannot be read ({reason})") from error


def _large_enough(pixels: Pixels, name: str) -> Pixels:
    if min(pixels.shape[:2]) < SMALLEST_SIDE:
        height, width = pixels.shape[:2]
        raise ImageError(f"{name}: {width}x{height} pixels; the smallest side must be {SMALLEST_SIDE}")
    return pixels


def _decode(file: Path | io.BytesIO, spec: PreprocessSpec, *, reduced: bool = False) -> Pixels:
    bit_depth = spec.bit_depth
    with Image.open(file, formats=IMAGE_FORMATS) as image:
        decoder, _, _, how = image.tile[0] if image.tile else ("", None, 0, "")
        if ";16" in str(how) and not image.mode.startswith("I") and bit_depth != 16:
            raise ValueError(f"16-bit colour: only its upper 8 bits are read, so a bit depth of {bit_depth} is lost")
        if decoder.startswith("ppm"):
            # A PGM states its own maximum, and Pillow has scaled it to 16 bits already.
            bit_depth = 16
        if image.format == "JPEG" and reduced:
            # One length for both sides: the picture may yet be turned.
            side = REDUCED_MARGIN * max(spec.height, spec.width)
            image.draft(None, (side, side))
        image.load()
        return to_rgb(ImageOps.exif_transpose(image), bit_depth)


def to_rgb(image: Image.Image, bit_depth: int = 16) -> Pixels:
    """uint8 [height, width, 3] of any Pillow image; 16-bit values are shifted by their known depth, never stretched."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise ValueError("32-bit integer pixels; save it as 8- or 16-bit")
        gray = np.minimum(values >> (bit_depth - 8), 255).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it as 8- or 16-bit")
    return np.asarray(image.convert("RGB"))


def fit_to_model(pixels: Pixels, spec: PreprocessSpec) -> Pixels:
    """Resize uint8 [h, w, 3] to uint8 [spec.height, spec.width, 3] (bilinear with antialiasing, as Pillow does it)."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(f"a frame must be uint8 [height, width, 3], not {pixels.dtype} {list(pixels.shape)}")
    if pixels.shape[:2] == (spec.height, spec.width):
        return np.ascontiguousarray(pixels)
    left, top, width, height = picture_in_frame(pixels.shape, spec)
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    if (width, height) == (spec.width, spec.height):
        return np.asarray(resized)
    frame = Image.new("RGB", (spec.width, spec.height))
    frame.paste(resized, (left, top))
    return np.asarray(frame)


def picture_in_frame(shape: tuple[int, ...], spec: PreprocessSpec) -> tuple[int, int, int, int]:
    """Where a picture of shape [h, w, ...] lies in the model's frame: left, top, width, height in the frame's pixels."""
    if spec.resize == "stretch":
        return 0, 0, spec.width, spec.height
    scale = min(spec.width / shape[1], spec.height / shape[0])
    width, height = max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))
    return (spec.width - width) // 2, (spec.height - height) // 2, width, height


def frame_of_array(pixels: NDArray[Any], source: str = "array") -> Frame:
    """A Frame of an array a user holds: uint8 [h, w], [h, w, 1] or [h, w, 3] (RGB)."""
    array = np.asarray(pixels)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or min(array.shape[:2]) < SMALLEST_SIDE:
        raise InputError(f"pass uint8 [height, width] or [height, width, 3], not {array.dtype} {list(array.shape)}")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    if array.shape[2] != 3:
        raise InputError(f"pass uint8 [height, width] or [height, width, 3], not {array.dtype} {list(array.shape)}")
    return Frame(array, source, 0, time.time())


@dataclass(frozen=True)
class Skipped:
    """An image that could not be used, and why."""

    path: Path
    reason: str


def read_frames(
    paths: list[Path], spec: PreprocessSpec, skipped: list[Skipped], *, most_skipped: float = 0.05
) -> Iterator[Frame]:
    """Frames of the readable files, in order; the others are appended to `skipped`.

    Raises InputError, naming the first ones, once more than `most_skipped` of all files proved unreadable.
    """
    for path, frame in decode_ahead(paths, spec):
        if isinstance(frame, ImageError):
            skipped.append(Skipped(path, str(frame)))
            if len(skipped) > most_skipped * len(paths):
                raise too_many_skipped(skipped, len(paths)) from frame
        else:
            yield frame


def decode_ahead(
    paths: list[Path], spec: PreprocessSpec, *, reduced: bool = False
) -> Iterator[tuple[Path, Frame | ImageError]]:
    """Each path with its frame, or with the error that reading it gave, in order. reduced: as of `read_frame`.

    A thread decodes the next frames while the caller works on one: decoding takes a third of a small encoder's time.
    """
    decoded = in_order(
        lambda item: read_frame(item[1], spec, item[0], reduced=reduced),
        enumerate(paths),
        threads=1,
        ahead=DECODED_AHEAD,
    )
    for (_, path), frame in decoded:
        yield _decoded(path, frame)


def _decoded(path: Path, frame: Future[Frame]) -> tuple[Path, Frame | ImageError]:
    try:
        return path, frame.result()
    except ImageError as error:
        return path, error


def too_many_skipped(skipped: list[Skipped], of: int) -> InputError:
    """The error that stops a job whose folder holds too many unreadable images."""
    shown = "; ".join(s.reason for s in skipped[:3])
    return InputError(f"{len(skipped)} of {of} images cannot be used, which is over 5 %: {shown}")
