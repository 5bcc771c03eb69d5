"""A watch with its HTTP side in this process: real uvicorn over loopback, the loop in a thread of the test."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from shutil import copy, copytree
from typing import Any

from orinspect_edge_runtime.watch.config import make_config
from orinspect_edge_runtime.watch.loop import Watch

TOKEN = "a-token-of-the-test-0123456789"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(condition: Callable[[], Any], within_s: float = 120) -> Any:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


class Answer:
    """Status, headers and body of an answer."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = answer.status, answer.headers, answer.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Site:
    """A running watch on a folder, and a client of its HTTP side."""

    def __init__(self, folder: Path, bundle: Path, pictures: Path, **http_table: Any) -> None:
        (folder / "in").mkdir(parents=True)
        copytree(bundle, folder / "bundle")
        self.folder, self.pictures, self.port, self._fed = folder, pictures, free_port(), 0
        self.values: dict[str, Any] = {
            "source": {"location": str(folder / "in")},
            "recipe": {"bundle": str(folder / "bundle"), "name": "part"},
            "journal": {"path": str(folder / "journal.sqlite")},
            "http": {"port": self.port, "folder": str(folder / "http")} | http_table,
            "status": str(folder / "status.json"),
        }
        self.file = folder / "watch.toml"
        self.start()

    def start(self) -> None:
        self.watch = Watch(self.file, make_config(self.values))
        assert self.watch.http is not None
        self.service = self.watch.http
        self._ending = threading.Event()
        self._loop = threading.Thread(target=self._steps)
        self.watch.reader.start()
        self.service.start()
        self._loop.start()
        wait_for(self._answers)

    def _answers(self) -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", self.port)) == 0

    def _steps(self) -> None:
        while not self._ending.is_set():
            self.watch.step()

    def close(self) -> None:
        self._ending.set()
        self._loop.join()
        self.watch._end()

    def close_and_start_again(self) -> None:
        """As a restart of the service would."""
        self.close()
        self.start()

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request; a dict is sent as JSON."""
        told = dict(headers or {})
        if isinstance(body, dict):
            body, told = json.dumps(body).encode(), {"Content-Type": "application/json"} | told
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            client.request(method, path, body, told)
            return Answer(client.getresponse())
        finally:
            client.close()

    def get(self, path: str, **headers: str) -> Any:
        answer = self.ask("GET", path, headers=headers)
        assert answer.status == 200, answer.body
        return answer.json

    def feed(self, *names: str) -> list[dict[str, Any]]:
        """Put pictures into the folder, and wait for their verdicts in the journal; newest first."""
        for name in names:
            self._fed += 1
            copy(self.pictures / name, self.folder / f"in/{self._fed:04d}.png")
        count = self.rows + len(names)
        wait_for(lambda: self.rows >= count)
        return list(self.get(f"/api/verdicts?limit={len(names)}")["verdicts"])

    @property
    def rows(self) -> int:
        return len(self.get("/api/verdicts?limit=500")["verdicts"])
