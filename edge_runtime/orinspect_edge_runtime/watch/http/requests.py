"""What comes in with a request, checked: numbers, outcomes, JSON bodies, images. Errors are one sentence."""

from __future__ import annotations

import asyncio
import json
from typing import TypeVar

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.schema import fill
from orinspect_edge_runtime.watch.http.records import OUTCOMES

ARRIVES_IN_S = 30.0
MOST_JSON_BYTES = 65_536
T = TypeVar("T")


def number(request: Request, name: str, default: int, most: int) -> int:
    """A whole number from 1 to `most` in the query. Raises InputError."""
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and 1 <= int(text) <= most):
        raise InputError(f"{name} is {text[:40]!r}: it must be a whole number from 1 to {most}")
    return int(text)


def outcomes(request: Request) -> tuple[str, ...]:
    """The outcomes asked for in the query (`outcome`, again and again); none: all. Raises InputError."""
    asked = request.query_params.getlist("outcome")
    for one in asked:
        if one not in OUTCOMES:
            raise InputError(f"outcome is {one[:40]!r}: use one of {', '.join(OUTCOMES)}")
    return tuple(dict.fromkeys(asked))


async def fields(request: Request, kind: type[T]) -> T:
    """A JSON object as the dataclass `kind`, whose fields are texts, numbers and booleans. Raises InputError."""
    content = await body(request)
    if len(content) > MOST_JSON_BYTES:
        raise HTTPException(413, "the JSON body is longer than 64 KiB")
    try:
        values = json.loads(content or b"{}")
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is not JSON ({str(error)[:100]})") from error
    if not isinstance(values, dict):
        raise InputError("the body must be a JSON object: {...}")
    return fill(kind, values)


async def image(request: Request) -> bytes:
    """An image file's bytes: the body itself, or the part `image` of a form."""
    kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _form_image(request)
    if not kind.startswith("image/") and kind != "application/octet-stream":
        raise HTTPException(415, "send an image file as the body (image/png, image/jpeg, ...) or as the part `image`")
    return await body(request)


async def _form_image(request: Request) -> bytes:
    async with request.form(max_files=1, max_fields=8) as form:
        part = form.get("image")
        if not isinstance(part, UploadFile):
            raise InputError("the form has no file in its part `image`")
        return await part.read()


async def body(request: Request) -> bytes:
    """The whole body; one that does not arrive is not waited for."""
    try:
        return await asyncio.wait_for(request.body(), ARRIVES_IN_S)
    except asyncio.TimeoutError as error:
        raise HTTPException(408, f"the body did not arrive in {ARRIVES_IN_S:g} seconds") from error
