"""A real Chromium without a window, driven by selenium: for the dashboard's browser test and its screenshots."""

from __future__ import annotations

import base64
from pathlib import Path
from shutil import which
from typing import Any

WHERE = "apt install chromium chromium-driver; pip install selenium"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars"
)


def missing() -> str:
    """What keeps a browser from being started, empty when nothing does."""
    absent = [name for name in ("chromium", "chromedriver") if which(name) is None]
    return f"no {' and no '.join(absent)} here ({WHERE})" if absent else ""


def open_browser(profile: Path, width: int = 1440, height: int = 900) -> Any:
    """A selenium driver with a fresh profile; call `quit` on it."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(which("chromium"))
    for flag in (*FLAGS.split(), f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(which("chromedriver"))))
    driver.set_page_load_timeout(120)
    driver.set_script_timeout(120)
    return driver


def set_screen(driver: Any, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
    """The viewport in CSS pixels; a phone has two pixels for each of them."""
    scale = 2 if phone else 1
    size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def screenshot(driver: Any, file: Path) -> None:
    """The viewport as PNG."""
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    file.write_bytes(base64.b64decode(taken["data"]))
