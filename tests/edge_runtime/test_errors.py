"""The error tree: as its docstring draws it, with the exit codes of the command line."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata

import pytest

from orinspect_edge_runtime import errors
from orinspect_edge_runtime.errors import EXTRA_OF_MODULE, CheckFailed, InputError, MissingExtra, OrinspectError

CLASSES = {name: value for name, value in vars(errors).items() if isinstance(value, type)}


def test_the_tree_in_the_docstring_is_the_tree_of_the_code() -> None:
    """Each drawn line `|   |-- Name` hangs below the nearest line above that is indented less."""
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([ |`-]*)([A-Z]\w+)\s{2,}\S", line)
        if found:
            indent, name = len(found[1]), found[2]
            above = [(i, n) for i, n in above if i < indent]
            drawn[name] = above[-1][1] if above else "Exception"
            above.append((indent, name))
    assert drawn == {name: kind.__bases__[0].__name__ for name, kind in CLASSES.items()}


@pytest.mark.parametrize("name", CLASSES)
def test_exit_codes(name: str) -> None:
    kind = CLASSES[name]
    assert issubclass(kind, OrinspectError)
    assert kind("x").exit_code == (1 if kind is CheckFailed else 2)
    assert kind.__doc__


@pytest.mark.parametrize("module", EXTRA_OF_MODULE)
def test_a_missing_module_names_the_extra_that_brings_it(module: str) -> None:
    for name in (module, f"{module}.part.of.it"):
        error = MissingExtra.of(ModuleNotFoundError(f"No module named {name!r}", name=name))
        assert isinstance(error, InputError)
        assert f"package {module!r}: run  pip install 'orinspect[{EXTRA_OF_MODULE[module]}]'" in str(error)


@pytest.mark.parametrize("name", [None, "", "numpy", "orinspect_train.nothing", "torchy"])
def test_other_modules_are_bugs(name: str | None) -> None:
    assert MissingExtra.of(ModuleNotFoundError("x", name=name)) is None


def test_every_extra_exists() -> None:
    try:
        extras = set(metadata("orinspect").get_all("Provides-Extra") or ())
    except PackageNotFoundError:
        pytest.skip("orinspect is not installed, only importable")
    assert set(EXTRA_OF_MODULE.values()) <= extras
