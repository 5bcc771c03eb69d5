"""Screenshots of the dashboard, of a real watch in a real Chromium: desktop, dark, alarm, detail, phone, teach, camera lost.

    python benchmarks/dashboard_pictures.py BUNDLE GOOD BAD --recipe NAME --out FOLDER

GOOD and BAD are folders of images; the recipe decides what the pictures show.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copy
from typing import Any

from chromium import missing, open_browser, screenshot, set_screen

from orinspect_edge_runtime.preprocess import list_images

WATCH = "from orinspect_edge_runtime.watch.command import watch; watch(standalone_mode=False)"
WITHIN_S = 120
FOLDER = 'location = "in"'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("good", type=Path)
    parser.add_argument("bad", type=Path)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    if missing():
        sys.exit(f"no screenshots: {missing()}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="orinspect-dashboard-") as name:
        driver = open_browser(Path(name) / "profile")
        try:
            line_pictures(driver, chosen, Path(name) / "line")
            camera_pictures(driver, chosen, Path(name) / "camera")
        finally:
            driver.quit()
    return 0


class Line:
    """A watch on the folder `in` (or a camera), with the dashboard on a free port."""

    def __init__(
        self, folder: Path, bundle: Path, recipe: str, source: str = 'location = "in"', *, http: bool = True
    ) -> None:
        (folder / "in").mkdir(parents=True)
        self.folder, self.port, self.fed = folder, free_port(), itertools.count()
        self.url = f"http://127.0.0.1:{self.port}"
        table = f"[http]\nport = {self.port}\n" if http else ""
        (folder / "line.toml").write_text(
            f'[source]\nname = "line 1"\n{source}\n[recipe]\nbundle = "{bundle.resolve()}"\nname = "{recipe}"\n'
            f"[verdict]\nreview_band = 0.15\n{table}"
        )
        self.process = subprocess.Popen([sys.executable, "-c", WATCH, "line.toml"], cwd=folder)

    def feed(self, images: list[Path]) -> None:
        for image in images:
            copy(image, self.folder / f"in/{next(self.fed):05d}{image.suffix}")
            time.sleep(0.12)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + WITHIN_S
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise SystemExit(f"did not happen in {WITHIN_S} s: {what}")


def in_state(driver: Any, *states: str) -> Callable[[], bool]:
    return lambda: driver.execute_script("return document.body.dataset.state") in states


def answers(port: int) -> Callable[[], bool]:
    def connects() -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", port)) == 0

    return connects


def line_pictures(driver: Any, chosen: argparse.Namespace, folder: Path) -> None:
    line = Line(folder, chosen.bundle, chosen.recipe)
    good, bad = list_images([chosen.good]), list_images([chosen.bad])
    try:
        wait(answers(line.port), "the dashboard")
        driver.get(line.url)
        set_screen(driver, 1440, 900)
        line.feed([*good[:15], bad[0], *good[15:28], bad[1], *good[28:]])
        wait(lambda: frames(driver) >= len(good) + 2, "all frames")
        wait(in_state(driver, "accept"), "a good part")
        time.sleep(1.5)
        screenshot(driver, chosen.out / "desktop.png")
        line.feed(bad[2:9])
        wait(lambda: frames(driver) >= len(good) + 9, "the bad parts")
        wait(in_state(driver, "reject", "review"), "a reject")
        time.sleep(1.5)
        set_screen(driver, 1440, 900, dark=True)
        time.sleep(1)
        screenshot(driver, chosen.out / "alarm.png")
        of_256_colours(chosen.out / "alarm.png", chosen.out / "dashboard.png")
        driver.execute_script("document.querySelector('#strip button').click()")
        time.sleep(1)
        screenshot(driver, chosen.out / "detail.png")
        driver.execute_script("document.querySelector('#fine').click()")
        wait(lambda: driver.execute_script("return !document.querySelector('#toast').hidden"), "the feedback")
        driver.execute_script("document.querySelector('#open-recipes').click()")
        wait(lambda: driver.execute_script("return document.querySelector('#history li') !== null"), "its history")
        screenshot(driver, chosen.out / "recipes.png")
        driver.execute_script("document.querySelector('#recipes .close').click()")
        set_screen(driver, 390, 844, phone=True)
        line.feed(good[:2])
        time.sleep(3)
        screenshot(driver, chosen.out / "phone.png")
        driver.execute_script("document.querySelector('#open-teach').click()")
        time.sleep(0.5)
        screenshot(driver, chosen.out / "teach-phone.png")
        set_screen(driver, 1440, 900)
        driver.execute_script(
            "const f = document.getElementById('teach-form').elements; f.name.value = 'cell-2'; "
            "f.frames.value = 30; f.every_s.value = 0; document.getElementById('teach-start').click()"
        )
        wait(lambda: driver.execute_script("return !document.getElementById('teach-progress').hidden"), "the teach")
        line.feed(good[:17])
        time.sleep(2)
        screenshot(driver, chosen.out / "teach.png")
    finally:
        line.close()


def of_256_colours(picture: Path, file: Path) -> None:
    """A picture small enough for the documentation: docs/dashboard.png."""
    from PIL import Image

    # Pillow's default would make the rare colours, those of the marks, ones of their neighbours.
    image, method = Image.open(picture).convert("RGB"), Image.Quantize.MAXCOVERAGE
    image.quantize(256, method=method, kmeans=2, dither=Image.Dither.NONE).save(file, optimize=True)


def frames(driver: Any) -> int:
    text = driver.execute_script("return document.querySelector('#counts dd')?.textContent || '0'")
    return int(text.replace(",", ""))


def camera_pictures(driver: Any, chosen: argparse.Namespace, folder: Path) -> None:
    camera = Camera([path.read_bytes() for path in list_images([chosen.good])])
    line = Line(folder, chosen.bundle, chosen.recipe, camera.source)
    try:
        wait(answers(line.port), "the dashboard")
        driver.get(line.url)
        set_screen(driver, 1440, 900)
        wait(lambda: frames(driver) > 20, "frames of the camera")
        camera.close()
        wait(in_state(driver, "camera"), "the camera's loss")
        time.sleep(1)
        screenshot(driver, chosen.out / "camera-lost.png")
    finally:
        line.close()


class Camera:
    """MJPEG over HTTP, ten pictures a second, until it is closed."""

    def __init__(self, pngs: list[bytes]) -> None:
        pictures, self.closed = [as_jpeg(png) for png in pngs], threading.Event()
        closed = self.closed

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                with contextlib.suppress(OSError):
                    self._stream()

            def _stream(self) -> None:
                for picture in itertools.cycle(pictures):
                    if closed.wait(0.1):
                        return
                    self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + picture + b"\r\n")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.source = (
            f'kind = "camera"\nformat = "mpjpeg"\nlocation = "http://127.0.0.1:{self._server.server_address[1]}/"'
        )

    def close(self) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()


def as_jpeg(png: bytes) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(file, "JPEG", quality=92)
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
