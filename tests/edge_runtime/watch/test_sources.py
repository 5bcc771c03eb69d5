"""Sources: real folders, a real video file, a real MJPEG server that goes away and comes back."""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orinspect_edge_runtime.errors import ImageError, InputError
from orinspect_edge_runtime.preprocess import Frame, PreprocessSpec, read_frames
from orinspect_edge_runtime.watch.config import SourceConfig
from orinspect_edge_runtime.watch.picture import CameraWatch, RateCap, cut
from orinspect_edge_runtime.watch.reader import Reader
from orinspect_edge_runtime.watch.slot import Job, Slot
from orinspect_edge_runtime.watch.sources import source_name
from orinspect_edge_runtime.watch.video import decode

SPEC = PreprocessSpec(32, 32)


def frame(value: int = 0, index: int = 0, at: float = 0.0) -> Frame:
    return Frame(np.full((20, 30, 3), value, np.uint8), "test", index, at)


def taken(reader: Reader, count: int, within_s: float = 60) -> list[Any]:
    found, end = [], time.monotonic() + within_s
    while len(found) < count and time.monotonic() < end and not reader.slot.empty:
        item = reader.slot.take(0.2)
        found += [] if item is None else [item.item]
    return found


def test_the_newest_frame_wins_and_the_dropped_are_counted() -> None:
    slot = Slot(keep_newest=True)
    for index in range(5):
        slot.put(Job(frame(index=index)))
    taken = slot.take(0)
    assert taken is not None
    assert isinstance(taken.item, Frame)
    assert (taken.item.index, slot.dropped) == (4, 4)
    slot.end()
    slot.put(Job(frame()))
    assert slot.empty


def test_a_large_jpeg_is_watched_as_it_was_fitted_on(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "part.jpg")
    reader = Reader(SourceConfig(str(tmp_path), "images"), SPEC)
    reader.start()
    (watched,) = taken(reader, 1)
    reader.stop(1)
    (fitted_on,) = read_frames([tmp_path / "part.jpg"], SPEC, [])
    np.testing.assert_array_equal(watched.pixels, fitted_on.pixels)


def test_files_wait_for_the_loop(pictures: Path) -> None:
    reader = Reader(SourceConfig(str(pictures / "test"), "images"), SPEC)
    reader.start()
    found = taken(reader, 100)
    assert [item.index for item in found] == list(range(11))
    assert (reader.error, reader.slot.dropped) == (None, 0)


def test_a_folder_gives_new_images_once_and_names_broken_ones(pictures: Path, tmp_path: Path) -> None:
    reader = Reader(SourceConfig(str(tmp_path)), SPEC)
    reader.start()
    copy(pictures / "test/good/00.png", tmp_path / "a.png")
    assert [item.source for item in taken(reader, 1)] == [str(tmp_path / "a.png")]
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "c.txt").write_bytes(b"")
    (broken,) = taken(reader, 1)
    assert isinstance(broken, ImageError)
    assert reader.slot.take(0.5) is None
    reader.stop(10)


def test_a_missing_folder_is_an_error() -> None:
    reader = Reader(SourceConfig("/nowhere"), SPEC)
    reader.start()
    assert taken(reader, 1) == []
    assert isinstance(reader.error, InputError)


def test_region_and_rotation() -> None:
    pixels = np.arange(20 * 30 * 3, dtype=np.uint16).astype(np.uint8).reshape(20, 30, 3)
    turned = cut(Frame(pixels, "x"), SourceConfig("x", region=(2, 1, 10, 8), rotate=90)).pixels
    assert (turned == np.rot90(pixels[1:9, 2:12], -1)).all()
    with pytest.raises(ImageError, match=r"outside of the picture \(30x20\)"):
        cut(Frame(pixels, "x"), SourceConfig("x", region=(25, 0, 10, 10)))


def test_the_rate_is_capped_also_when_the_clock_is_set_back() -> None:
    cap = RateCap(10)
    assert [cap.lets(t) for t in (100.0, 100.05, 100.11, 50.0, 50.05, 50.2)] == [True, False, True, True, False, True]


def test_black_and_frozen_pictures_are_alarms() -> None:
    watch = CameraWatch(SourceConfig("x", black_below=10, frozen_after_s=5))
    assert watch.alarm(frame(3)) == "black"
    assert [watch.alarm(frame(v, at=t)) for v, t in ((90, 1), (90, 5), (90, 6.5), (91, 7))] == ["", "", "frozen", ""]


def test_a_password_is_not_in_the_name() -> None:
    assert source_name(SourceConfig("rtsp://me:secret@camera/1", "camera")) == "rtsp://camera/1"


def test_a_video_file_gives_every_picture(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="the extra `watch` is not installed")
    with av.open(str(tmp_path / "v.mp4"), "w") as made:
        stream = made.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for value in range(0, 200, 10):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), value, np.uint8), format="rgb24")
            made.mux(stream.encode(picture))
        made.mux(stream.encode())
    reader = Reader(SourceConfig(str(tmp_path / "v.mp4"), "video"), SPEC)
    reader.start()
    means = [item.pixels.mean() for item in taken(reader, 100)]
    assert len(means) == 20
    assert np.abs(np.array(means) - np.arange(0, 200, 10)).max() < 6


class Mjpeg(BaseHTTPRequestHandler):
    """Ten pictures a connection, then it hangs up."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
        self.end_headers()
        for value in range(10):
            file = io.BytesIO()
            Image.new("RGB", (64, 48), (value * 20,) * 3).save(file, "JPEG")
            head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {file.tell()}\r\n\r\n".encode()
            try:
                self.wfile.write(head + file.getvalue() + b"\r\n")
            except OSError:
                return
            time.sleep(0.02)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mjpeg() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mjpeg)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_a_lost_stream_is_opened_again(mjpeg: str) -> None:
    pytest.importorskip("av", reason="the extra `watch` is not installed")
    reader = Reader(SourceConfig(mjpeg, "camera", format="mpjpeg"), SPEC)
    reader.start()
    last, starts, end = 99, 0, time.monotonic() + 60
    while starts < 3 and time.monotonic() < end:
        for item in taken(reader, 1, within_s=0.5):
            # Frames count from 0 again after each opening; which of them are dropped is left to chance.
            starts += item.index <= last
            last = item.index
    assert starts == 3, reader.trouble
    reader.stop(10)


@pytest.fixture
def rtsp() -> Iterator[tuple[str, Callable[[], subprocess.Popen[str]]]]:
    """The URL of a real RTSP server and what starts it."""
    pytest.importorskip("av", reason="the extra `watch` is not installed")
    python, bindings = Path("/usr/bin/python3"), "import gi; gi.require_version('GstRtspServer', '1.0')"
    if not python.exists() or subprocess.run([python, "-c", bindings], capture_output=True, check=False).returncode:
        pytest.skip("no RTSP server: apt install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = list[subprocess.Popen[str]]()

    def start() -> subprocess.Popen[str]:
        command = [str(python), str(Path(__file__).with_name("rtsp_server.py")), port]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == "serves\n"
        return started[-1]

    yield f"rtsp://127.0.0.1:{port}/line", start
    for process in started:
        process.kill()
        process.communicate()


def test_an_rtsp_server_that_is_killed_or_hangs_is_found_again(
    rtsp: tuple[str, Callable[[], subprocess.Popen[str]]],
) -> None:
    url, start = rtsp
    server = start()
    reader = Reader(SourceConfig(url, "camera", timeout_s=2), SPEC)
    reader.start()
    assert len(taken(reader, 5)) == 5
    server.kill()
    server.wait()
    wait_for(lambda: reader.trouble.startswith("lost: "), reader)
    again = start()
    assert len(taken(reader, 5)) == 5
    assert reader.trouble == ""
    again.send_signal(signal.SIGSTOP)
    wait_for(lambda: "no picture for 2 s" in reader.trouble, reader)
    again.send_signal(signal.SIGCONT)
    assert len(taken(reader, 5)) == 5
    reader.stop(10)


def wait_for(condition: Callable[[], bool], reader: Reader) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, reader.trouble
        reader.slot.take(0.05)


def test_a_device_is_opened_through_video4linux() -> None:
    """As far as it goes without a camera: the driver's interface is what refuses a device that is none."""
    pytest.importorskip("av", reason="the extra `watch` is not installed")
    with pytest.raises(InputError, match=r"cam: cannot be read as video \(Inappropriate ioctl for device\)"):
        next(decode(SourceConfig("/dev/null", "camera", format="v4l2"), "cam"))
    with pytest.raises(InputError, match=r"cam: cannot be read as video \(No such file or directory\)"):
        next(decode(SourceConfig("/dev/video9999", "camera"), "cam"))


def test_a_camera_that_is_not_there_is_an_alarm_not_an_end() -> None:
    pytest.importorskip("av", reason="the extra `watch` is not installed")
    reader = Reader(SourceConfig("http://127.0.0.1:9/", "camera", format="mpjpeg"), SPEC)
    reader.start()
    end = time.monotonic() + 30
    while not reader.trouble and time.monotonic() < end:
        time.sleep(0.05)
    assert reader.trouble.startswith("lost: http://127.0.0.1:9/: cannot be read as video")
    assert not reader.slot.ended
    reader.stop(10)
