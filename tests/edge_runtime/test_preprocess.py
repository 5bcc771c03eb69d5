"""Image files as they come: a right uint8 frame, or one line that names the file. Nothing else, and nothing printed."""

from __future__ import annotations

import io
import itertools
import os
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from orinspect_edge_runtime.errors import ConfigError, ImageError, InputError
from orinspect_edge_runtime.preprocess import (
    IMAGE_SUFFIXES,
    Frame,
    PreprocessSpec,
    Skipped,
    fit_to_model,
    frame_of_array,
    list_images,
    read_frame,
    read_frames,
)

SPEC = PreprocessSpec()
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8)
GRAY = RGB[:, :, 0].copy()
DEEP = RNG.integers(0, 65536, (12, 10), dtype=np.uint16)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gray_as_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[:, :, None], 3, axis=2)


def png(mode: int, depth: int, height: int, width: int, rows: bytes) -> bytes:
    """A PNG file out of its raw rows, for the kinds that Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = len(rows) // height if height and rows else 0
    raw = b"".join(b"\0" + rows[row * size : (row + 1) * size] for row in range(height)) if rows else b""
    header = struct.pack(">IIBBBBB", width, height, depth, mode, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., np.ndarray]:
    """Write bytes to a file of the given name, read it as a frame, and check what holds for every frame."""

    def read(content: bytes, name: str = "image.png", spec: PreprocessSpec = SPEC) -> np.ndarray:
        (tmp_path / name).write_bytes(content)
        return checked_pixels(tmp_path / name, spec)

    return read


def checked_pixels(path: Path, spec: PreprocessSpec = SPEC) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = read_frame(path, spec)
    assert frame.source == str(path)
    assert frame.captured_at == path.stat().st_mtime
    assert frame.pixels.dtype == np.uint8
    assert frame.pixels.ndim == 3
    assert frame.pixels.shape[2] == 3
    assert min(frame.pixels.shape) > 0
    return frame.pixels


def refused(path: Path, message: str | None = None, spec: PreprocessSpec = SPEC) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=message) as caught:
            read_frame(path, spec)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


LOSSLESS = {
    "rgb.png": (encode(Image.fromarray(RGB), "PNG"), RGB),
    "rgb.bmp": (encode(Image.fromarray(RGB), "BMP"), RGB),
    "rgb.ppm": (encode(Image.fromarray(RGB), "PPM"), RGB),
    "rgb.tif": (encode(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"), RGB),
    "rgb.webp": (encode(Image.fromarray(RGB), "WEBP", lossless=True), RGB),
    "a png inside.jpg": (encode(Image.fromarray(RGB), "PNG"), RGB),
    "gray.png": (encode(Image.fromarray(GRAY), "PNG"), gray_as_rgb(GRAY)),
    "gray.pgm": (encode(Image.fromarray(GRAY), "PPM"), gray_as_rgb(GRAY)),
    "gray and alpha.png": (encode(Image.fromarray(GRAY).convert("LA"), "PNG"), gray_as_rgb(GRAY)),
    "one bit.png": (encode(Image.fromarray(GRAY > 99), "PNG"), gray_as_rgb((GRAY > 99) * np.uint8(255))),
    "one bit.tif": (encode(Image.fromarray(GRAY > 99), "TIFF"), gray_as_rgb((GRAY > 99) * np.uint8(255))),
    "deep.png": (encode(Image.fromarray(DEEP), "PNG"), gray_as_rgb((DEEP >> 8).astype(np.uint8))),
    "deep.tiff": (encode(Image.fromarray(DEEP), "TIFF"), gray_as_rgb((DEEP >> 8).astype(np.uint8))),
    "deep.pgm": (b"P5\n10 12\n65535\n" + DEEP.astype(">u2").tobytes(), gray_as_rgb((DEEP >> 8).astype(np.uint8))),
    "deep gray and alpha.png": (
        png(4, 16, 12, 10, np.stack([DEEP, DEEP * 0], 2).astype(">u2").tobytes()),
        gray_as_rgb((DEEP >> 8).astype(np.uint8)),
    ),
    "deep rgb.png": (png(2, 16, 12, 10, (RGB.astype(np.uint16) * 256 + 7).astype(">u2").tobytes()), RGB),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_every_kind_of_file_gives_its_pixels(read: Callable[..., np.ndarray], name: str) -> None:
    content, expected = LOSSLESS[name]
    np.testing.assert_array_equal(read(content, name), expected)


def test_alpha_is_ignored(read: Callable[..., np.ndarray]) -> None:
    alpha = RNG.integers(0, 256, (12, 10, 1), dtype=np.uint8)
    rgba = Image.fromarray(np.concatenate([RGB, alpha], axis=2))
    np.testing.assert_array_equal(read(encode(rgba, "PNG")), RGB)


@pytest.mark.parametrize("options", [{}, {"transparency": 3}, {"transparency": bytes([0, 128, 255])}])
def test_palette_with_and_without_transparency(read: Callable[..., np.ndarray], options: dict[str, Any]) -> None:
    palette = Image.fromarray(RGB).quantize(16)
    expected = np.array(palette.convert("RGB"))
    np.testing.assert_array_equal(read(encode(palette, "PNG", **options)), expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_is_near_its_pixels(read: Callable[..., np.ndarray], mode: str) -> None:
    smooth = np.linspace(40, 200, 32 * 32).reshape(32, 32).astype(np.uint8)
    image = Image.fromarray(smooth).convert("RGB").convert(mode)
    error = np.abs(read(encode(image, "JPEG", quality=95), "x.jpg").astype(int) - gray_as_rgb(smooth))
    assert error.max() <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(read: Callable[..., np.ndarray], orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: np.rot90,
    }
    for kind, name in (("PNG", "x.png"), ("WEBP", "x.webp")):
        options = {"lossless": True} if kind == "WEBP" else {}
        pixels = read(encode(Image.fromarray(RGB), kind, exif=exif, **options), name)
        np.testing.assert_array_equal(pixels, turns[orientation](RGB))


@pytest.mark.parametrize("bit_depth", [10, 12, 14, 16])
def test_deep_images_are_shifted_by_their_depth_whatever_they_hold(
    read: Callable[..., np.ndarray], bit_depth: int
) -> None:
    spec = PreprocessSpec(bit_depth=bit_depth)
    dark = np.full((12, 10), 257, np.uint16)
    for values, kind in itertools.product((dark, DEEP & ((1 << bit_depth) - 1)), ("PNG", "TIFF")):
        pixels = read(encode(Image.fromarray(values), kind), "x.tif", spec)
        np.testing.assert_array_equal(pixels[:, :, 0], values >> (bit_depth - 8))
    over = np.full((12, 10), 65535, np.uint16)
    assert (read(encode(Image.fromarray(over), "PNG"), "x.png", spec) == 255).all(), "clipped, not wrapped"


def test_big_endian_tiff(read: Callable[..., np.ndarray]) -> None:
    image = Image.frombytes("I;16B", (10, 12), DEEP.astype(">u2").tobytes())
    np.testing.assert_array_equal(read(encode(image, "TIFF"), "x.tif")[:, :, 1], DEEP >> 8)


@pytest.mark.parametrize("bit_depth", [12, 16])
def test_a_pgm_states_its_own_maximum(read: Callable[..., np.ndarray], bit_depth: int) -> None:
    values = DEEP & 4095
    content = b"P5\n10 12\n4095\n" + values.astype(">u2").tobytes()
    pixels = read(content, "x.pgm", PreprocessSpec(bit_depth=bit_depth))
    assert np.abs(pixels[:, :, 0].astype(int) - (values >> 4)).max() <= 1


def test_deep_colour_with_another_bit_depth_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(LOSSLESS["deep rgb.png"][0])
    refused(path, "16-bit colour", PreprocessSpec(bit_depth=12))
    path = tmp_path / "shallow.png"
    path.write_bytes(LOSSLESS["rgb.png"][0])
    np.testing.assert_array_equal(checked_pixels(path, PreprocessSpec(bit_depth=12)), RGB)


REFUSED = {
    "text.jpg": (b"not an image at all\n" * 9, "not an image"),
    "empty.png": (b"", "not an image"),
    "page.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nquit\n", "not an image"),
    "animation.png": (encode(Image.fromarray(RGB), "GIF"), "not an image"),
    "float.tif": (encode(Image.fromarray(RNG.random((12, 10)).astype(np.float32)), "TIFF"), "floating-point"),
    "32 bits.tif": (encode(Image.fromarray(DEEP.astype(np.int32) * 7), "TIFF"), "32-bit integer"),
    "negative.tif": (encode(Image.fromarray(-DEEP.astype(np.int32) - 1), "TIFF"), "32-bit integer"),
    "1x1.png": (encode(Image.new("RGB", (1, 1)), "PNG"), "1x1 pixels; the smallest side must be 8"),
    "low.png": (encode(Image.new("RGB", (100, 7)), "PNG"), "100x7 pixels"),
    "bomb.png": (png(2, 8, 65000, 65000, b""), "over 178 megapixels"),
    "big bomb.png": (png(2, 8, 2**31 - 1, 2**31 - 1, b""), "over 178 megapixels"),
    "no pixels.png": (png(2, 8, 0, 0, b""), None),
    "no data.png": (png(2, 8, 20, 20, b""), "cannot be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_picture_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content, message = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, message)


def test_a_large_line_scan_picture_is_taken_and_twice_that_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("L", (11, 18)).save(tmp_path / "long.png")
    Image.new("L", (11, 19)).save(tmp_path / "longer.png")
    assert checked_pixels(tmp_path / "long.png").shape == (18, 11, 3)
    refused(tmp_path / "longer.png", "cut it into tiles first")


WHOLE = {
    "x.jpg": encode(Image.fromarray(RGB), "JPEG"),
    "progressive.jpg": encode(Image.fromarray(RGB), "JPEG", progressive=True),
    "x.png": encode(Image.fromarray(RGB), "PNG"),
    "x.bmp": encode(Image.fromarray(RGB), "BMP"),
    "x.ppm": encode(Image.fromarray(RGB), "PPM"),
    "x.webp": encode(Image.fromarray(RGB), "WEBP", lossless=True),
    "x.tif": encode(Image.fromarray(RGB), "TIFF"),
    "deep.png": LOSSLESS["deep.png"][0],
}
EXIF = Image.Exif()
EXIF[274] = 6
SEEDS = {
    **WHOLE,
    "exif.jpg": encode(Image.fromarray(RGB), "JPEG", exif=EXIF),
    "exif.png": encode(Image.fromarray(RGB), "PNG", exif=EXIF),
    "palette.png": encode(Image.fromarray(RGB).quantize(9), "PNG", transparency=bytes([0, 9])),
    "x.pgm": b"P5\n10 12\n4095\n" + (DEEP & 4095).astype(">u2").tobytes(),
    "cmyk.jpg": encode(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_cut_file_is_never_taken_for_a_whole_one(tmp_path: Path, name: str) -> None:
    path, content = tmp_path / name, WHOLE[name]
    path.write_bytes(content)
    expected = checked_pixels(path)
    # What follows the pixels (a PNG's end mark, a TIFF's tags) may be missing; the pixels may not.
    for length in itertools.chain(range(0, len(content), max(1, len(content) // 60)), range(len(content) - 9)[-9:]):
        path.write_bytes(content[:length])
        try:
            pixels = checked_pixels(path)
        except ImageError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            np.testing.assert_array_equal(pixels, expected)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


def frame_or_image_error(path: Path, content: bytes, spec: PreprocessSpec = SPEC) -> None:
    path.write_bytes(content)
    try:
        checked_pixels(path, spec)
    except ImageError as error:
        assert str(error).startswith(f"{path}: ")
        assert len(str(error).splitlines()) == 1


@given(st.binary(max_size=200), st.sampled_from(sorted(IMAGE_SUFFIXES)))
@example(b"\x89PNG\r\n\x1a\n", ".png")
@example(b"II*\0\x08\0\0\0", ".tif")
@example(b"P5\n9 9\n0\n", ".pgm")
def test_random_bytes(scratch: Path, content: bytes, suffix: str) -> None:
    frame_or_image_error(scratch / f"random{suffix}", content)


@settings(max_examples=200)
@given(st.data())
def test_damaged_files(scratch: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(SEEDS)))
    content = bytearray(SEEDS[name])
    near_start = st.integers(0, min(len(content), 120) - 1) | st.integers(0, len(content) - 1)
    for place, byte in data.draw(st.lists(st.tuples(near_start, st.integers(0, 255)), min_size=1, max_size=8)):
        content[place] = byte
    frame_or_image_error(scratch / name, bytes(content), PreprocessSpec(bit_depth=12))


@pytest.mark.parametrize("tag", [1, 274, 305])
def test_damaged_exif_neither_warns_nor_stops_the_picture(scratch: Path, tag: int) -> None:
    """Every byte of a small EXIF block, damaged in turn."""
    exif = Image.Exif()
    exif[tag] = "text" if tag == 305 else 3
    block = exif.tobytes()
    for place in range(len(block)):
        damaged = block[:place] + bytes([block[place] ^ 0xFF]) + block[place + 1 :]
        frame_or_image_error(scratch / "exif.png", encode(Image.fromarray(RGB), "PNG", exif=damaged))


def test_a_batch_of_bad_files_prints_nothing(tmp_path: Path) -> None:
    for name, content in (SEEDS | {name: content for name, (content, _) in REFUSED.items()}).items():
        for cut in (len(content), len(content) // 2, len(content) - 12):
            (tmp_path / f"{cut}-{name}").write_bytes(content[: max(cut, 0)])
    script = """
import sys
from pathlib import Path
from orinspect_edge_runtime.errors import ImageError
from orinspect_edge_runtime.preprocess import PreprocessSpec, list_images, read_frame
good = bad = 0
for path in list_images([Path(sys.argv[1])]):
    try:
        read_frame(path, PreprocessSpec())
        good += 1
    except ImageError:
        bad += 1
assert good > 10 and bad > 30, (good, bad)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_paths_that_are_no_readable_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    refused(tmp_path / "missing.png", "No such file")
    refused(tmp_path / "pipe.png", "not a regular file")
    refused(tmp_path / "folder.png", "not a regular file")
    refused(tmp_path / "loop.png", "symbolic links")
    refused(Path("/dev/zero"), "not a regular file")
    refused(tmp_path / ("x" * 300), "File name too long")


def test_a_file_without_read_permission(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path, folder = tmp_path / "x.png", tmp_path / "private"
    path.write_bytes(WHOLE["x.png"])
    folder.mkdir()
    path.chmod(0)
    folder.chmod(0)
    request.getfixturevalue("as_plain_user")
    refused(path, "Permission denied")
    with pytest.raises(InputError, match="Permission denied"):
        list_images([folder / "x.png"])


def test_list_images_finds_them_in_order(tmp_path: Path) -> None:
    names = ["B.PNG", "a.jpg", "b.JPeG", "sub/ä ö.tif", "sub/子/零.webp", "line\nbreak.png"]
    for name in [*names, "notes.txt", "png", ".hidden.png", ".git/x.png", "sub/.x/y.png"]:
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes(WHOLE["x.png"])
    (tmp_path / "d/folder.png").mkdir()
    (tmp_path / "d/link.png").symlink_to(tmp_path / "d/a.jpg")
    (tmp_path / "d/dangling.png").symlink_to(tmp_path / "nowhere")
    found = list_images([tmp_path / "d"])
    assert found == sorted(tmp_path / "d" / name for name in [*names, "link.png"])
    assert list_images([found[2], tmp_path / "d/sub", found[2]]) == [found[2], *found[-2:], found[2]]
    assert all(checked_pixels(path).shape == RGB.shape for path in found)


def test_list_images_below_a_hidden_folder_or_through_a_link(tmp_path: Path) -> None:
    (tmp_path / ".cache/images").mkdir(parents=True)
    (tmp_path / ".cache/images/x.png").touch()
    (tmp_path / "link").symlink_to(tmp_path / ".cache/images")
    assert [path.name for path in list_images([tmp_path / ".cache/images"])] == ["x.png"]
    assert [path.name for path in list_images([tmp_path / "link"])] == ["x.png"]


@pytest.mark.parametrize("name", ["missing", "empty", "x" * 300])
def test_list_images_says_what_is_missing(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/readme.txt").touch()
    with pytest.raises(InputError) as caught:
        list_images([tmp_path / name])
    assert name in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_list_images_of_nothing() -> None:
    with pytest.raises(InputError, match="no images here"):
        list_images([])


def test_a_line_break_in_a_file_name_is_still_named(tmp_path: Path) -> None:
    path = tmp_path / "line\nbreak.png"
    path.write_bytes(b"text")
    with pytest.raises(ImageError) as caught:
        read_frame(path, SPEC)
    assert str(path) in str(caught.value)


def folder_of(folder: Path, good: int, bad: int) -> list[Path]:
    paths = [folder / f"{number:03}.png" for number in range(good + bad)]
    for number, path in enumerate(paths):
        path.write_bytes(WHOLE["x.png"] if number >= bad else b"text")
    return paths


def test_read_frames_skips_and_names_a_few_bad_files(tmp_path: Path) -> None:
    paths, skipped = folder_of(tmp_path, 19, 1), list[Skipped]()
    frames = list(read_frames(paths, SPEC, skipped))
    assert [frame.index for frame in frames] == list(range(1, 20))
    assert [skip.path for skip in skipped] == paths[:1]
    assert str(paths[0]) in skipped[0].reason


def test_read_frames_stops_at_more_than_five_percent(tmp_path: Path) -> None:
    paths = folder_of(tmp_path, 18, 2)
    with pytest.raises(InputError, match="2 of 20 images cannot be used") as caught:
        list(read_frames(paths, SPEC, []))
    assert all(str(path) in str(caught.value) for path in paths[:2])
    assert len(list(read_frames(paths, SPEC, [], most_skipped=0.1))) == 18


def side(least: int = 8, most: int = 300) -> st.SearchStrategy[int]:
    return st.integers(least, most)


def image_of(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(side(), side(), side(32, 99), side(32, 99), st.sampled_from(["stretch", "letterbox"]))
@example(8, 5000, 32, 32, "letterbox")
@example(5000, 8, 40, 32, "letterbox")
def test_fit_to_model_gives_the_models_size(height: int, width: int, rows: int, columns: int, resize: str) -> None:
    pixels = fit_to_model(np.full((height, width, 3), 200, np.uint8), PreprocessSpec(rows, columns, resize))
    assert pixels.shape == (rows, columns, 3)
    assert pixels.dtype == np.uint8
    lit = (pixels > 0).all(axis=2)
    if resize == "stretch":
        assert (pixels == 200).all()
    else:
        # One filled rectangle of the picture's aspect ratio, centred, touching two opposite edges; black around it.
        assert set(np.unique(pixels)) <= {0, 200}
        high, wide = int(lit.any(axis=1).sum()), int(lit.any(axis=0).sum())
        assert lit.sum() == high * wide > 0
        assert high == rows or wide == columns
        assert high == pytest.approx(height * min(rows / height, columns / width), abs=1)
        assert wide == pytest.approx(width * min(rows / height, columns / width), abs=1)
        top, left = int(lit.any(axis=1).argmax()), int(lit.any(axis=0).argmax())
        assert (top, left) == ((rows - high) // 2, (columns - wide) // 2)


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_fit_to_model_leaves_a_frame_of_the_right_size_alone(resize: str) -> None:
    pixels = image_of(40, 50)
    np.testing.assert_array_equal(fit_to_model(pixels, PreprocessSpec(40, 50, resize)), pixels)
    turned = image_of(50, 40).transpose(1, 0, 2)
    fitted = fit_to_model(turned, PreprocessSpec(40, 50, resize))
    np.testing.assert_array_equal(fitted, turned)
    assert fitted.flags.c_contiguous


@given(side(32, 120), side(32, 120), st.integers(0, 99), st.sampled_from(["stretch", "letterbox"]))
def test_fit_to_model_depends_on_nothing_but_the_pixels(height: int, width: int, seed: int, resize: str) -> None:
    """Not on other frames, the memory layout, nor on whether the array may be written to."""
    spec, pixels = PreprocessSpec(48, 32, resize), image_of(height, width, seed)
    expected = fit_to_model(pixels, spec)
    fit_to_model(image_of(width, height, seed + 1), spec)
    odd = np.zeros((height, width * 2, 3), np.uint8)[:, ::2]
    odd[:] = pixels
    odd.flags.writeable = False
    np.testing.assert_array_equal(fit_to_model(odd, spec), expected)
    np.testing.assert_array_equal(fit_to_model(pixels[:, ::-1], spec), fit_to_model(pixels[:, ::-1].copy(), spec))


def test_shrinking_averages_instead_of_dropping_pixels() -> None:
    stripes = np.zeros((320, 320, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(fit_to_model(stripes, PreprocessSpec(32, 32)).astype(int) - 127).max() <= 6


@pytest.mark.parametrize("shape", [(9, 9), (9, 9, 1), (9, 9, 4), (1, 9, 9, 3)])
def test_fit_to_model_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="uint8"):
        fit_to_model(np.zeros(shape, np.uint8), SPEC)
    with pytest.raises(InputError, match="float32"):
        fit_to_model(np.zeros((9, 9, 3), np.float32), SPEC)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 1), (9, 8, 3)])
def test_a_users_array_becomes_a_frame(shape: tuple[int, ...]) -> None:
    frame = frame_of_array(np.full(shape, 7, np.uint8))
    assert isinstance(frame, Frame)
    assert frame.pixels.shape == (9, 8, 3)
    assert (frame.pixels == 7).all()


@pytest.mark.parametrize("shape", [(), (9,), (7, 9), (9, 9, 0), (9, 9, 2), (9, 9, 4), (1, 9, 9, 3), (0, 0)])
def test_other_arrays_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="pass uint8"):
        frame_of_array(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int8, bool, object])
def test_arrays_of_other_types_are_refused(dtype: Any) -> None:
    with pytest.raises(InputError, match="pass uint8"):
        frame_of_array(np.zeros((9, 9, 3), dtype))


@pytest.mark.parametrize(
    "values",
    [
        {"resize": "crop"},
        {"bit_depth": 8},
        {"bit_depth": 17},
        {"height": 31},
        {"width": 31},
        {"height": 4097},
        {"width": -1},
    ],
)
def test_a_spec_out_of_range_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(values.values())))):
        PreprocessSpec(**values)


@pytest.mark.parametrize(
    ("size", "reduced"), [((900, 900), (450, 450)), ((500, 900), (500, 900)), ((450, 1000), (450, 1000))]
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(
    size: tuple[int, int], reduced: tuple[int, int], turned: bool, tmp_path: Path
) -> None:
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    pixels = (128 + 90 * np.sin(rows / 23) * np.cos(columns / 31)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    Image.fromarray(pixels).save(tmp_path / "x.jpg", quality=92, exif=exif)
    spec = PreprocessSpec(224, 192)
    frame, whole = (read_frame(tmp_path / "x.jpg", spec, reduced=reduced) for reduced in (True, False))
    order = slice(None, None, -1 if turned else 1)
    assert frame.pixels.shape[:2] == reduced[order]
    assert whole.pixels.shape[:2] == size[order]
    error = np.abs(fit_to_model(frame.pixels, spec).astype(int) - fit_to_model(whole.pixels, spec))
    assert error.mean() < 0.5
