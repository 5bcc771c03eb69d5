"""Who may come in: a token in the Authorization header, or the cookie that the login form gives for it."""

from __future__ import annotations

import hashlib
import hmac
import time

COOKIE = "orinspect"
LIFETIME_S = 30 * 86_400


class Door:
    """Checks tokens and cookies in constant time. Without a token everybody on this computer may come in."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    @property
    def is_open(self) -> bool:
        """No token is asked for."""
        return not self._token

    def knows(self, token: str) -> bool:
        """Whether this is the token."""
        return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token)

    def cookie(self, now: float | None = None) -> str:
        """A cookie for LIFETIME_S: its end, signed with the token, so that a new token ends all sessions."""
        ends = str(int((time.time() if now is None else now) + LIFETIME_S))
        return f"{ends}.{self._sign(ends)}"

    def admits(self, authorization: str | None, cookie: str | None, now: float | None = None) -> bool:
        """Whether a request with these two may come in. A header that is there decides alone."""
        if self.is_open:
            return True
        if authorization is not None:
            kind, _, token = authorization.partition(" ")
            return kind.lower() == "bearer" and self.knows(token.strip())
        ends, _, signature = (cookie or "").partition(".")
        signed = hmac.compare_digest(signature.encode("utf-8", "surrogatepass"), self._sign(ends).encode())
        return signed and ends.isdecimal() and int(ends) > (time.time() if now is None else now)

    def _sign(self, ends: str) -> str:
        text = b"orinspect session until " + ends.encode("utf-8", "surrogatepass")
        return hmac.new(self._token, text, hashlib.sha256).hexdigest()
