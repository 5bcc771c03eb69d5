"""Dataclasses as canonical JSON: one byte sequence a value, with a digest, so that one flipped byte is an error.

Sorted keys, two-space indent, and a field `digest` that is the sha256 of the rest. The dataclass must have a field
`format_version`, an int.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import types
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from orinspect_edge_runtime.errors import ConfigError, OrinspectError

T = TypeVar("T")


@dataclass(frozen=True)
class Document:
    """What messages say about one kind of file.

    name: as in "not ...". mend: what the user does about a damaged one. newest: the newest format version read.
    """

    name: str
    mend: str
    newest: int
    error: type[OrinspectError]


def encode(value: Any) -> bytes:
    """The canonical serialisation of a dataclass, with its digest."""
    body = dataclasses.asdict(value)
    body["digest"] = _digest(body)
    return (json.dumps(body, sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False) + "\n").encode()


def decode(kind: type[T], content: bytes, where: str, document: Document) -> T:
    """Read and verify. `where` names the file in messages.

    Raises document.error: not JSON, a newer format version, a missing or unknown field, or a changed byte.
    """
    try:
        body = json.loads(content)
        version = body["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise document.error(f"{where}: damaged or not {document.name}; {document.mend}") from error
    if type(version) is not int or version < 1:
        raise document.error(f"{where}: format version {version!r} is not known; {document.mend}")
    if version > document.newest:
        raise document.error(
            f"{where}: format version {version}, but this orinspect reads up to {document.newest}; "
            "run  pip install --upgrade orinspect"
        )
    digest = body.pop("digest", None)
    try:
        value: T = _build(kind, body)
        is_intact = digest == _digest(body) and encode(value) == content
    except (TypeError, ValueError, KeyError, RecursionError, ConfigError) as error:
        raise document.error(f"{where}: damaged ({error}); {document.mend}") from error
    if not is_intact:
        raise document.error(f"{where}: its bytes were changed after it was written; {document.mend}")
    return value


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def _build(kind: Any, value: Any) -> Any:
    """Make an object of the annotated type `kind` from parsed JSON. Raises TypeError or ValueError naming the field."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value)
    if origin is tuple:
        items = _expect(value, list)
        kinds = [arguments[0]] * len(items) if arguments[-1] is Ellipsis else list(arguments)
        return tuple(_build(k, item) for k, item in zip(kinds, items, strict=True))
    if origin is dict:
        return {_expect(k, str): _build(arguments[1], item) for k, item in _expect(value, dict).items()}
    if origin in (typing.Union, types.UnionType):
        return _expect(value, *arguments)
    if kind is float:
        # An int stays one: written as `0` it must be written as `0` again.
        return _expect(value, int, float)
    return _expect(value, kind)


def _build_dataclass(kind: Any, value: Any) -> Any:
    hints = _hints(kind)
    fields = _expect(value, dict)
    unknown = sorted(set(fields) - set(hints))
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r} of {kind.__name__}")
    return kind(**{name: _build(hints[name], item) for name, item in fields.items()})


# Reading the hints takes as long as all the rest, and a manifest has the same few kinds again and again.
_hints = functools.cache(typing.get_type_hints)


def _expect(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise TypeError(f"expected {' or '.join(k.__name__ for k in kinds)}, found {type(value).__name__}")
    return value
