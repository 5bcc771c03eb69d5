"""What benchmarks/watch.py runs on: bundles and pictures made on the spot, and `orinspect watch` as a process."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from textures import render

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.fit import fit_recipe
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.preprocess import PreprocessSpec, list_images, read_frame

PROJECT = Path(__file__).resolve().parents[1]
WATCH = "from orinspect_edge_runtime.watch.command import watch; watch(standalone_mode=False)"
RECIPE, ENCODER = "part", "tf_efficientnet_lite0"


def real_bundle(folder: Path) -> tuple[Path, Path]:
    """EfficientNet-Lite0 (192x192, fp32) with patchcore on woven cloth of 640x640, every second piece torn; its pictures."""
    from orinspect_train.encoder import Encoder, normalisation
    from orinspect_train.run import encoder_record, load_imagenet, save_encoder

    woven = render("weave", 640, 40, 20)
    for name, pictures in (("good", woven.good), ("test", woven.test)):
        (folder / name).mkdir(parents=True)
        for number, pixels in enumerate(pictures):
            Image.fromarray(pixels).save(folder / name / f"{number:03d}.png")
    encoder = Encoder(ENCODER, 192)
    load_imagenet(encoder)
    mean, std = normalisation(ENCODER)
    spec = PreprocessSpec(192, 192)
    record = encoder_record(
        encoder.eval(), init="imagenet", method="none", mean=mean, std=std, preprocess=spec, adapted=False
    )
    (folder / "run").mkdir()
    save_encoder(folder / "run", encoder, record)
    export = ["export", str(folder / "run"), "--out", str(folder / "bundle"), "--precision", "fp32"]
    orinspect(*export, "--calibration", str(folder / "good"))
    orinspect("fit", str(folder / "bundle"), str(folder / "good"), "--recipe", RECIPE)
    return folder / "bundle", folder / "test"


def tiny_bundle(folder: Path) -> tuple[Path, Path]:
    """The bundle of the tests: a real graph of means over cells, 32x32, with patchcore; a quarter of a millisecond."""
    place = importlib.util.spec_from_file_location("bundles", PROJECT / "tests/conftest.py")
    assert place is not None
    assert place.loader is not None
    tests = importlib.util.module_from_spec(place)
    # Where dataclasses look for the module that they stand in.
    sys.modules["bundles"] = tests
    place.loader.exec_module(tests)
    bundle, rng = Bundle.open(tests.write_real_bundle(folder / "bundle")), np.random.default_rng(0)
    for name, count in (("good", 24), ("test", 20)):
        (folder / name).mkdir()
        for number in range(count):
            pixels = rng.integers(90, 110, (40, 36, 3), dtype=np.uint8)
            if name == "test" and number % 2:
                pixels[10:22, 12:24] = 250
            Image.fromarray(pixels).save(folder / name / f"{number:02d}.png")
    good = [read_frame(path, bundle.manifest.preprocess) for path in list_images([folder / "good"])]
    bundle.add_recipe(fit_recipe(bundle, iter(good), RECIPE, FitOptions()))
    return folder / "bundle", folder / "test"


def orinspect(*arguments: str) -> None:
    """Run the command line; its errors are shown."""
    call = [sys.executable, "-c", "from orinspect_edge_runtime.cli import main; main()", *arguments]
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL)


class Line:
    """`orinspect watch` as a process in a folder of its own, under a stand-in for systemd's notification socket."""

    def __init__(self, place: Path, bundle: Path, source: dict[str, Any], **tables: dict[str, Any]) -> None:
        place.mkdir(exist_ok=True)
        self.place, self.journal = place, place / "journal.sqlite"
        self.tables: dict[str, Any] = {
            "source": source,
            "recipe": {"bundle": str(bundle), "name": RECIPE},
            "journal": {"path": str(self.journal)},
        } | tables
        self.journal = Path(self.tables["journal"]["path"])
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it; seconds until it said READY."""
        lines = [f"status = {json.dumps(str(self.place / 'status.json'))}"]
        for name, table in self.tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        (self.place / "watch.toml").write_text("\n".join(lines) + "\n")
        address, begin = self.place / "notify", time.perf_counter()
        address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, (self.place / "log").open("ab") as log:
            systemd.bind(str(address))
            systemd.settimeout(120)
            environment = os.environ | {"NOTIFY_SOCKET": str(address)}
            command = [sys.executable, "-c", WATCH, str(self.place / "watch.toml")]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self.place)
            atexit.register(self.process.kill)
            assert systemd.recv(500).startswith(b"READY=1")
        return time.perf_counter() - begin

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Signal it and wait for its end."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(120)

    def status(self) -> dict[str, Any]:
        """The status it published last; empty before the first."""
        try:
            return dict(json.loads((self.place / "status.json").read_text()))
        except (OSError, ValueError):
            return {}

    def resident_mib(self) -> float:
        """Its resident memory now."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024

    def last(self) -> int:
        """Number of the journal's last row."""
        with contextlib.suppress(sqlite3.Error), self.opened() as database:
            return int(database.execute("SELECT ifnull(max(seq), 0) FROM event").fetchone()[0])
        return 0

    @contextlib.contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """The journal, to read."""
        database = sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True, timeout=30)
        try:
            yield database
        finally:
            database.close()

    def whole(self) -> dict[str, Any]:
        """Whether the journal is whole, and its rows and repeated ids."""
        with self.opened() as database:
            torn = database.execute("PRAGMA integrity_check").fetchone() != ("ok",)
            rows, ids = database.execute("SELECT count(*), count(DISTINCT id) FROM event").fetchone()
        return {"rows": rows, "duplicate_ids": rows - ids, "torn": torn}


def wait_for(condition: Callable[[], Any], what: str, within_s: float = 120, every_s: float = 0.01) -> float:
    """Wait until it holds; the seconds that took. Ends the benchmark when it does not."""
    begin = time.perf_counter()
    while not condition():
        if time.perf_counter() > begin + within_s:
            sys.exit(f"it did not happen within {within_s} s: {what}")
        time.sleep(every_s)
    return time.perf_counter() - begin
