"""What every request passes before any page sees it: host name, token, origin, size. And the headers of every answer."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orinspect_edge_runtime.watch.http.answers import refusal
from orinspect_edge_runtime.watch.http.session import COOKIE, Door

# What a browser needs to show the form that asks for the token.
PUBLIC = ("/login", "/dashboard.css", "/icon.svg")
READS = ("GET", "HEAD")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: browsers would then send `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware. names: host names under which it may be reached, beside addresses and localhost."""

    def __init__(self, app: ASGIApp, door: Door, names: tuple[str, ...], most_bytes: int) -> None:
        self._app, self._door, self._most_bytes = app, door, most_bytes
        own = socket.gethostname().lower()
        self._names = {"localhost", own, f"{own}.local", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through or answer it."""
        if scope["type"] != "http":
            # No WebSockets here: closed before it was accepted, which a browser sees as a 403.
            await send({"type": "websocket.close", "code": 1008})
            return
        refused = self._refused(Request(scope))
        if refused is not None:
            await refused(scope, receive, _with_headers(send))
        else:
            await self._app(scope, _limited(receive, self._most_bytes), _with_headers(send))

    def _refused(self, request: Request) -> Response | None:
        headers = request.headers
        if not self._is_known(headers.get("host", "")):
            return refusal(421, "this name is not known here: add it to names in [http] of the configuration")
        if request.method not in READS and is_foreign(headers):
            return refusal(403, "this request came from another web page")
        if request.url.path not in PUBLIC and not self._admits(request):
            if request.url.path == "/":
                return RedirectResponse("/login", 303)
            return refusal(401, "a token is needed: send  Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if len(length) > 18 or (length.isdecimal() and int(length) > self._most_bytes):
            return refusal(413, too_large(self._most_bytes))
        return None

    def _admits(self, request: Request) -> bool:
        return self._door.admits(request.headers.get("authorization"), request.cookies.get(COOKIE))

    def _is_known(self, host: str) -> bool:
        """Addresses cannot be rebound by a foreign name server; names must be ours."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            return ipaddress.ip_address(name) is not None
        except ValueError:
            return name.lower() in self._names


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that another page makes this request. Programs send neither header."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return True
    origin = headers.get("origin")
    try:
        return origin is not None and urlsplit(origin).netloc != headers.get("host")
    except ValueError:
        return True


def too_large(most_bytes: int) -> str:
    """The sentence for a body over the limit."""
    return f"the body is larger than {most_bytes >> 20} MiB: send a smaller image, or raise upload_mib in [http]"


def _limited(receive: Receive, most_bytes: int) -> Receive:
    """Count a body whose length was not told."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most_bytes:
            raise HTTPException(413, too_large(most_bytes))
        return message

    return counted


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sent
