"""A frozen dataclass as the schema of a TOML table or a JSON object: typed keys, ranges, the nearest name for a typo."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from orinspect_edge_runtime.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Schema = TypeVar("Schema")
# Integers beyond are not exact as float; far larger ones are none.
LARGEST_WHOLE_FLOAT = 1e15


def read_toml(path: Path, make: Callable[[dict[str, Any]], Schema]) -> Schema:
    """What `make` makes of a TOML file. Raises ConfigError, one line that names the file."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML ({error})") from error
    try:
        return make(found)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def fill(schema: type[Schema], values: Mapping[str, Any]) -> Schema:
    """An instance of a dataclass, whose fields with an annotation of TYPES are the keys.

    Raises ConfigError: an unknown key, a missing one, a wrong type, or whatever the class itself refuses.
    """
    keys = {one.name: one for one in dataclasses.fields(schema) if str(one.type) in TYPES}  # type: ignore[arg-type]
    for name in values:
        if name not in keys:
            raise ConfigError(unknown(name, keys))
    for name, one in keys.items():
        if one.default is one.default_factory is dataclasses.MISSING and name not in values:
            raise ConfigError(f"{name} is missing")
    return schema(**{name: _typed(name, value, str(keys[name].type)) for name, value in values.items()})


def unknown(key: str, known: Iterable[str]) -> str:
    """What to say of a key that is none of the known ones."""
    near = difflib.get_close_matches(key, known, 1, cutoff=0.0)
    return f"unknown key {_shown(key)}" + (f": did you mean {near[0]!r}?" if near else "")


def within(table: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise ConfigError for the first field of `table` that lies outside of its least and greatest value."""
    for one in dataclasses.fields(table):
        least, most = ranges.get(one.name, (None, None))
        value = getattr(table, one.name)
        # Written so that a NaN fails too.
        if least is not None and most is not None and not least <= value <= most:
            raise ConfigError(f"{one.name} is {value}: it must be {least:g} to {most:g}")


def _typed(name: str, value: Any, annotation: str) -> Any:
    words, fits = TYPES[annotation]
    if words == "float" and type(value) is int and abs(value) < LARGEST_WHOLE_FLOAT:
        return float(value)
    made = tuple(value) if isinstance(value, list) else value
    if not fits(made):
        raise ConfigError(f"{name} is {_shown(value)}: it must be of type {words}")
    return made


def _shown(value: Any) -> str:
    """A value in an error's line; a long one is cut."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _all(kind: type, values: Any) -> bool:
    return all(type(one) is kind for one in values)


# What a field's annotation (a text: PEP 563) asks of a value, in words and as a test. True is no int.
TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "str": ("str", lambda v: type(v) is str),
    "int": ("int", lambda v: type(v) is int),
    "float": ("float", lambda v: type(v) is float),
    "bool": ("bool", lambda v: type(v) is bool),
    "tuple[int, ...]": ("list of integers", lambda v: type(v) is tuple and _all(int, v)),
    "tuple[str, ...]": ("list of strings", lambda v: type(v) is tuple and _all(str, v)),
    "dict[str, str]": ("table of strings", lambda v: type(v) is dict and _all(str, v.values())),
}
