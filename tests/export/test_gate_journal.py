"""The gate's journal: nothing is measured twice, whatever happened to the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orinspect_export.decisions import Budget, Judge
from orinspect_export.exporter import ExportOptions, export_run
from orinspect_export.gate_journal import GateJournal


def fill(path: Path, key: bytes = b"key", count: int = 3) -> list[str]:
    """Remember so many values; returns the names that had to be measured."""
    journal, measured = GateJournal(path, key), []
    for number in range(count):

        def measure(number: int = number) -> Any:
            measured.append(f"name {number}")
            return {"value": [number, None, 0.1]}

        assert journal.remember(f"name {number}", measure) == {"value": [number, None, 0.1]}
    return measured


def test_what_is_known_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    assert len(fill(path, count=3)) == 3
    assert fill(path, count=5) == ["name 3", "name 4"]
    assert fill(path, b"another key", count=5) == [f"name {n}" for n in range(5)]
    GateJournal(path, b"key").drop()
    assert not path.exists()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 400), st.binary(max_size=40))
def test_after_any_damage_what_follows_is_measured_again(tmp_path: Path, place: int, junk: bytes) -> None:
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    fill(path)
    content = path.read_bytes()
    path.write_bytes(content[:place] + junk)
    fill(path)
    assert fill(path) == [], "what was measured again is kept"
    for line in path.read_bytes().splitlines():
        json.loads(line)


def test_a_disk_that_refuses_costs_nothing_but_the_journal(tmp_path: Path) -> None:
    assert len(fill(tmp_path / "no folder" / "journal")) == 3


def test_a_killed_export_goes_on_where_it_was(
    resnet_run: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, measured = tmp_path / "bundle", []
    judge = Judge.agreement
    options = ExportOptions(("int8",), budget=Budget(0.995, 0.05))

    def counted(self: Judge, model: Any) -> Any:
        measured.append(1)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return judge(self, model)

    monkeypatch.setattr(Judge, "agreement", counted)
    with pytest.raises(KeyboardInterrupt):
        export_run(resnet_run, out, image_folder, options)
    left = tmp_path / ".bundle.gate.jsonl"
    known = left.read_bytes().count(b"\n")
    assert known > 10, "the effect of every layer, and two agreements"
    again: list[str] = []
    remember = GateJournal.remember

    def told(self: GateJournal, name: str, measure: Any) -> Any:
        return remember(self, name, lambda: (again.append(name), measure())[1])

    monkeypatch.setattr(GateJournal, "remember", told)
    made = export_run(resnet_run, out, image_folder, options)
    assert all("keeping" in name for name in again), "no effect is measured twice"
    assert made.manifest.parity["int8"]["graphs_tried"] > 2
    assert not left.exists()
