"""The HTTP side of a watch: its parts, its socket, its thread."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.watch.config import HttpConfig
from orinspect_edge_runtime.watch.http.board import Board
from orinspect_edge_runtime.watch.http.feedback import Feedback
from orinspect_edge_runtime.watch.http.kept import KeptFrames
from orinspect_edge_runtime.watch.http.live import Live
from orinspect_edge_runtime.watch.http.records import Records
from orinspect_edge_runtime.watch.http.scoring import Scoring
from orinspect_edge_runtime.watch.http.session import Door
from orinspect_edge_runtime.watch.http.switch import Switch
from orinspect_edge_runtime.watch.http.teach import Teach
from orinspect_edge_runtime.watch.http.window import Window
from orinspect_edge_runtime.watch.outbox import Outbox
from orinspect_edge_runtime.watch.sources import source_name
from orinspect_edge_runtime.watch.trigger import Trigger

if TYPE_CHECKING:
    from orinspect_edge_runtime.watch.loop import Watch

LOG = logging.getLogger("orinspect.watch")
PACKAGES = ("starlette", "uvicorn", "python_multipart", "prometheus_client")
# Threads for whatever reads a disk or computes: enough for a page, too few to crowd the line out.
THREADS = 4


class Service:
    """Everything that [http] brings. Raises InputError: the address is taken, or its folder cannot be written."""

    def __init__(self, watch: Watch, config: HttpConfig) -> None:
        for name in PACKAGES:
            # Found now: a missing extra must be told before the watch begins. Imported later, in the thread.
            if importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(name=name)
        self.config, self._watch, self.door = config, watch, Door(config.token)
        _check_certificate(config)
        folder = Path(config.folder)
        _make(folder)
        self.kept_frames = KeptFrames(folder / "frames.sqlite", config.kept_frames)
        self.kept = Outbox("frames", self.kept_frames.write, queue=16, batch=8)
        self.switch = Switch(watch, folder)
        self.teach = Teach(
            lambda: watch.config.recipe.bundle, folder / "teach", self.switch.fit_options, self.switch.to
        )
        self.window = Window(self.kept, self.teach)
        self.live = Live(self.window, watch.judge.detector.bundle.manifest.preprocess)
        self.records = Records(Path(watch.config.journal.path))
        self.scoring, self.board = Scoring(watch), Board()
        self.feedback = Feedback(lambda: watch.config.recipe, self.records, self.kept_frames, self.switch.take_over)
        self._socket = listen(config)
        self._server: Any = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Begin to answer; the imports happen in the thread too, so the first verdict does not wait for them."""
        self._thread.start()

    def stop(self) -> None:
        """Begin to end: open answers, a teach, the thread. Returns at once, so that the sinks can drain meanwhile."""
        self._closing = True
        self.teach.cancel()
        if self._server is not None:
            self._server.should_exit = True

    def close(self, deadline: float) -> None:
        """Wait for the end, at the latest until the time.monotonic `deadline`."""
        self.stop()
        self.kept.close(deadline)
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))
        self._socket.close()

    @property
    def trigger(self) -> Trigger | None:
        """The line's trigger, None when frames are judged as they come."""
        return self._watch.trigger

    def status(self) -> dict[str, Any]:
        """What the loop told last, and what only matters here."""
        recipe = self._watch.judge.product.recipe
        chosen: dict[str, Any] = {"name": recipe.name, "scorer": recipe.scorer, "precision": recipe.precision}
        chosen |= {"threshold": recipe.threshold, "good_images": recipe.good_images, "false_alarm": recipe.false_alarm}
        told = self._watch.told
        return told | {
            "now": time.time(),
            "source": source_name(self._watch.config.source),
            "token": not self.door.is_open,
            "running": chosen,
            "teach": self.teach.status(),
            "board": self.board.status(),
        }

    def _run(self) -> None:
        try:
            self._serve()
        except Exception:
            LOG.exception("the dashboard ended; the line goes on without it")

    def _serve(self) -> None:
        import uvicorn

        from orinspect_edge_runtime.watch.http.app import make_app
        from orinspect_edge_runtime.watch.http.metrics import Metrics
        from orinspect_edge_runtime.watch.http.stream import Stream

        logging.getLogger("uvicorn.error").addFilter(
            lambda record: not (record.exc_info and is_strange(record.exc_info[1]))
        )
        self.metrics = Metrics(self._watch, self.window)
        self.stream = Stream(self.window, self.status, lambda: self._closing)
        settings = uvicorn.Config(
            make_app(self),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=self.config.viewers,
            timeout_graceful_shutdown=1,
            ssl_certfile=self.config.certificate or None,
            ssl_keyfile=self.config.key or None,
        )
        self._server = uvicorn.Server(settings)
        self._server.should_exit = self._closing
        # After inference the loop must not wait 5 ms, Python's default, for this thread to let go of the interpreter.
        sys.setswitchinterval(0.0005)
        asyncio.run(self._answer())

    async def _answer(self) -> None:
        from anyio.to_thread import current_default_thread_limiter

        def tell(loop: asyncio.AbstractEventLoop, trouble: dict[str, Any]) -> None:
            if not is_strange(trouble.get("exception")):
                loop.default_exception_handler(trouble)

        asyncio.get_running_loop().set_exception_handler(tell)
        current_default_thread_limiter().total_tokens = THREADS
        await self._server.serve(sockets=[self._socket])


def is_strange(error: BaseException | None) -> bool:
    """Whether a visitor broke off, broke the protocol, or was left behind at the end.

    No error of ours, and the log must not grow by what strangers do.
    """
    from h11 import LocalProtocolError
    from starlette.requests import ClientDisconnect

    return isinstance(error, ClientDisconnect | LocalProtocolError | asyncio.CancelledError)


def listen(config: HttpConfig) -> socket.socket:
    """A socket at the address, bound now: an address that is taken must be told before the watch begins."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
        except OSError:
            opened.close()
            raise
    except OSError as error:
        raise InputError(
            f"cannot listen on {config.host}:{config.port} ({error.strerror or error}): choose another port in [http]"
        ) from error
    return opened


def _check_certificate(config: HttpConfig) -> None:
    if config.certificate:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.certificate, config.key)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"[http] certificate {config.certificate} and key {config.key} cannot be used ({reason})"
            ) from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}): name another folder in [http]") from error
