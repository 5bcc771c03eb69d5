"""Server-sent events, and the end of a process whose dashboard is open."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copy
from typing import Any
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("starlette", reason="the extra `watch` is not installed")

from site_of_tests import free_port, wait_for

Site = Any
WATCH = "from orinspect_edge_runtime.watch.command import watch; watch(standalone_mode=False)"


def events(lines: Iterator[bytes]) -> Iterator[tuple[str, Any]]:
    kind = ""
    for line in lines:
        name, _, value = line.decode().strip().partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)


def opened(site: Site, last: int | None = None) -> Any:
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    return urlopen(Request(f"http://127.0.0.1:{site.port}/api/events", headers=headers), timeout=120)


def numbers(told: Iterator[tuple[str, Any]]) -> list[int]:
    return next([row[0] for row in rows] for kind, rows in told if kind == "verdicts")


def test_verdicts_as_they_come(site: Site) -> None:
    with opened(site) as stream:
        told = events(stream)
        assert numbers(told) == [1, 2, 3]
        site.feed("test/good/03.png")
        assert numbers(told) == [4]
        status = next(content for kind, content in told if kind == "status")
        assert status["running"]["name"] == "part" and status["teach"]["state"] == "idle"
    with opened(site, last=2) as stream:
        assert numbers(events(stream)) == [3, 4]
    with opened(site, last=10**9) as stream:
        assert numbers(events(stream)) == [1, 2, 3, 4], "the viewer's number is of an earlier run"


def test_the_end_does_not_wait_for_viewers(tmp_path: Path, two_recipes: Path, pictures: Path) -> None:
    port = free_port()
    (tmp_path / "in").mkdir()
    copy(pictures / "test/good/00.png", tmp_path / "in")
    config = tmp_path / "watch.toml"
    text = f'[source]\nlocation = "in"\n[recipe]\nbundle = "{two_recipes}"\nname = "part"\n[http]\nport = {port}\n'
    config.write_text(text)
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", WATCH, config], cwd=tmp_path, env=environment, stderr=log)
    try:
        base = f"http://127.0.0.1:{port}"
        wait_for(lambda: process.poll() is not None or listens(port))
        with (
            urlopen(f"{base}/api/events", timeout=120) as stream,
            socket.create_connection(("127.0.0.1", port)) as half,
        ):
            half.sendall(b"POST /api/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nhalf")
            told = events(stream)
            assert numbers(told) == [1]
            config.write_text(text + "viewers = 9\n[verdict]\ndebounce = 2\n")
            process.send_signal(signal.SIGHUP)
            wait_for(lambda: b"reloaded: " in (tmp_path / "log").read_bytes())
            assert b"changes of http take effect after a restart" in (tmp_path / "log").read_bytes()
            copy(pictures / "test/blot/00.png", tmp_path / "in")
            assert numbers(told) == [2]
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0
            assert [kind for kind, _ in told if kind == "verdicts"] == []
    finally:
        process.kill()
        process.wait()
    assert b"Traceback" not in (tmp_path / "log").read_bytes()


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def test_a_port_that_is_taken_is_said_before_anything_runs(
    site: Site, tmp_path: Path, two_recipes: Path, orinspect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(
        f'[source]\nlocation = "in"\n[recipe]\nbundle = "{two_recipes}"\nname = "part"\n[http]\nport = {site.port}\n'
    )
    ran = orinspect("watch", "c.toml")
    assert ran.code == 2
    assert f"cannot listen on 127.0.0.1:{site.port} (Address already in use): choose another port" in ran.err
    assert not (tmp_path / "journal.sqlite").exists()
