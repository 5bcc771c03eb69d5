"""A TensorRT made from a manifest of the real one: exactly its names and signatures, and a recording for an engine.

Every name that the manifest of a version lacks raises AttributeError, and a call with other arguments than its
signature raises TypeError: code that runs against the stubs of all versions calls nothing that one of them lacks.

A "plan" made here is the ONNX file behind a header; the "engine" runs it in onnxruntime, on the memory that the
addresses point to. It is marked as a recording, which the runtime refuses with any other TensorRT.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from enum import IntEnum
from pathlib import Path
from typing import Any

from fake_tensorrt import recording

MANIFESTS = Path(__file__).resolve().parent.parent / "data" / "trt_api"
VERSIONS = ("tensorrt-10.3.0", "tensorrt-10.16.1", "tensorrt-11.4.0", "tensorrt_rtx-1.7.1")
# Names of a class that Python or a subclass of ours needs.
_ALWAYS = re.compile(r"__\w+__|_\w+")


def load(version: str) -> types.ModuleType:
    """The stub of one manifest in tests/data/trt_api."""
    manifest = json.loads((MANIFESTS / f"{version}.json").read_text(encoding="utf-8"))
    module = types.ModuleType(version.partition("-")[0])
    module.__version__ = manifest["version"]
    module.IS_RECORDING_FOR_TESTS = True
    module.calls = []
    for name, values in manifest["enums"].items():
        if "." not in name:
            setattr(module, name, IntEnum(name, values))
    for name, members in manifest["members"].items():
        if name in manifest["names"] and not hasattr(module, name):
            setattr(module, name, _class(module, manifest, name, members))
    return module


def _class(module: types.ModuleType, manifest: dict[str, Any], name: str, members: list[str]) -> type:
    behaviour = getattr(recording, name, object)
    allowed = set(members)
    signatures = {m: s for m in members if (s := manifest["signatures"].get(f"{name}.{m}"))}

    def get(self: Any, attribute: str) -> Any:
        if attribute not in allowed and not _is_ours(type(self), made, attribute):
            raise AttributeError(f"TensorRT {manifest['version']}: {name} has no {attribute!r}")
        if attribute in signatures and not hasattr(behaviour, attribute) and type(self) is made:
            raise NotImplementedError(f"the stub does not play {name}.{attribute}")
        try:
            value = object.__getattribute__(self, attribute)
        except AttributeError:
            if attribute not in allowed:
                raise
            # A property of the real class that nobody has set.
            return None
        if attribute in signatures and callable(value):
            module.calls.append(f"{name}.{attribute}")
            return _checked(value, f"{name}.{attribute}", signatures[attribute])
        return value

    def put(self: Any, attribute: str, value: Any) -> None:
        if attribute not in allowed and not _is_ours(type(self), made, attribute):
            raise AttributeError(f"TensorRT {manifest['version']}: {name} has no {attribute!r} to set")
        module.calls.append(f"{name}.{attribute}=")
        object.__setattr__(self, attribute, value)

    body = {"__getattribute__": get, "__setattr__": put, "_trt": module}
    # Class attributes (ILogger.ERROR) and nested enums (ILogger.Severity).
    severity = manifest["enums"].get(f"{name}.Severity") or (
        {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4} if "Severity" in allowed else None
    )
    if severity:
        nested = IntEnum("Severity", severity)
        body |= {"Severity": nested} | {m.name: m for m in nested if m.name in allowed}
    made = type(name, (behaviour,) if behaviour is not object else (), body)
    return made


def _is_ours(kind: type, made: type, attribute: str) -> bool:
    """Attributes of a subclass (Logger.log of the code under test), private ones and Python's own."""
    return bool(_ALWAYS.fullmatch(attribute)) or (kind is not made)


def _checked(method: Any, name: str, signature: str) -> Any:
    """The method behind a check of its arguments against the manifest's signature."""
    text = signature.partition("(")[2].partition(") ->")[0]
    parameters = []
    for part in re.split(r",\s*(?=\w+:|\*)", text):
        found = re.match(r"(\w+):", part)
        if not found or found[1] == "self":
            continue
        default = None if "=" in part.partition(":")[2] else inspect.Parameter.empty
        parameters.append(inspect.Parameter(found[1], inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default))
    expected = inspect.Signature(parameters)

    def call(*arguments: Any, **named: Any) -> Any:
        try:
            expected.bind(*arguments, **named)
        except TypeError as error:
            raise TypeError(f"{name}{expected}: {error}") from error
        return method(*arguments, **named)

    return call
