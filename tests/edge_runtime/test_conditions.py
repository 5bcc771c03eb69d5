"""The conditions beside every number: complete, plain values, and of this machine."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import pytest

from orinspect_edge_runtime import conditions
from orinspect_edge_runtime.conditions import machine, measure_conditions

CPUINFO = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nmodel name\t: Other\n"


def test_conditions_are_plain_and_complete() -> None:
    before = datetime.now(timezone.utc).replace(microsecond=0)
    measured = measure_conditions(3)
    assert json.loads(json.dumps(measured)) == measured
    assert measured["threads"] == 3
    assert measured["cores_available"] == len(os.sched_getaffinity(0))
    assert measured["machine"]
    versions = measured["versions"]
    assert isinstance(versions, dict)
    assert versions["numpy"] == version("numpy")
    assert all(isinstance(found, str) for found in versions.values())
    assert before <= datetime.fromisoformat(str(measured["measured_at"])) <= datetime.now(timezone.utc)


def test_zero_threads_mean_all_cores() -> None:
    assert measure_conditions(0)["threads"] == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/sys/firmware/devicetree/base/model": "Board of a test\0", "/proc/cpuinfo": CPUINFO}, "Board of a test"),
        ({"/proc/device-tree/model": "Board of a test\0\n", "/proc/cpuinfo": CPUINFO}, "Board of a test"),
        ({"/sys/firmware/devicetree/base/model": "\0", "/proc/cpuinfo": CPUINFO}, "Some CPU @ 2.00GHz"),
        ({"/proc/cpuinfo": CPUINFO}, "Some CPU @ 2.00GHz"),
    ],
)
def test_the_machine_is_named_by_the_board_then_by_the_processor(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: str
) -> None:
    monkeypatch.setattr(conditions, "_read", lambda file: files.get(file, ""))
    assert machine() == expected


def test_an_unreadable_machine_is_still_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "denied")))
    assert machine()
