"""Answers in JSON. An error is {"error": a sentence}, never a stack trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from orinspect_edge_runtime.errors import CheckFailed, ImageError, OrinspectError, RecipeError
from orinspect_edge_runtime.watch.http.records import NotInJournal

SENTENCES = {
    # What starlette says by itself.
    "Not Found": "there is nothing at this address: see /openapi.json",
    "Method Not Allowed": "this address does not take this method: see /openapi.json",
}
# The first kind that fits an error decides.
STATUS_OF: tuple[tuple[type[OrinspectError], int], ...] = (
    (ImageError, 422),
    (RecipeError, 409),
    (NotInJournal, 404),
    (CheckFailed, 409),
    (OrinspectError, 400),
)


def refusal(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error's answer."""
    return JSONResponse({"error": sentence}, status, headers)


async def http_error(request: Request, error: Exception) -> Response:
    """Of starlette's own errors."""
    assert isinstance(error, HTTPException)
    return refusal(error.status_code, SENTENCES.get(str(error.detail), str(error.detail)), error.headers)


async def our_error(request: Request, error: Exception) -> Response:
    """Of errors that a user can mend."""
    status = next(code for kind, code in STATUS_OF if isinstance(error, kind))
    return refusal(status, str(error))


async def unknown_error(request: Request, error: Exception) -> Response:
    """Of errors in here: uvicorn writes it to the log, the visitor learns nothing."""
    return refusal(500, "an error in orinspect: its log says more")


HANDLERS: dict[Any, Any] = {HTTPException: http_error, OrinspectError: our_error, Exception: unknown_error}
