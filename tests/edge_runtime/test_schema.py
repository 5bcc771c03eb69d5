"""Schemas: whatever a table holds, it becomes an instance or one line."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orinspect_edge_runtime.errors import ConfigError
from orinspect_edge_runtime.schema import fill, read_toml, within


@dataclass(frozen=True)
class Table:
    """One field a kind, and one that is no key."""

    name: str
    count: int = 3
    share: float = 0.5
    open: bool = False
    sizes: tuple[int, ...] = ()
    lines: dict[str, str] = field(default_factory=dict)
    rest: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        within(self, {"share": (0, 1), "elsewhere": (0, 1)})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(Table)]) | st.text(max_size=8), VALUES))
def test_anything_is_an_instance_or_one_line(values: dict[str, Any]) -> None:
    try:
        made = fill(Table, values)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 200
        return
    assert type(made.count) is int and type(made.open) is bool
    assert type(made.share) is float and 0 <= made.share <= 1
    assert {name: getattr(made, name) for name in values} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "name is missing"),
        ({"name": "a", "cuont": 1}, "unknown key 'cuont': did you mean 'count'?"),
        ({"name": "a", "rest": {}}, "unknown key 'rest'"),
        ({"name": 1}, "name is 1: it must be of type str"),
        ({"name": "a", "count": True}, "count is True: it must be of type int"),
        ({"name": "a", "share": 10**400}, "it must be of type float"),
        ({"name": "a", "share": math.nan}, "share is nan: it must be 0 to 1"),
        ({"name": "a", "sizes": [1, "b"]}, "it must be of type list of integers"),
        ({"name": "x" * 500, "open": "y" * 500}, "open is 'yyyy"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        fill(Table, values)
    assert told in str(error.value) and len(str(error.value)) < 120


def test_a_whole_number_is_a_float_too() -> None:
    assert type(fill(Table, {"name": "a", "share": 1}).share) is float


def test_errors_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    for content, told in (("name = 1", "name is 1"), ("name = ", "not TOML"), ("[" * 9000, "not TOML")):
        file.write_text(content)
        with pytest.raises(ConfigError, match=f"c.toml: .*{told}"):
            read_toml(file, lambda found: fill(Table, found))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path / "none.toml", lambda found: fill(Table, found))
