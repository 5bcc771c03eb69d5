"""The committed results of the benchmarks can be read, and each is of a benchmark that exists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

RESULTS = sorted((Path(__file__).parents[1] / "benchmarks/results").glob("*.json"))


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_a_result_is_json_of_a_benchmark(file: Path) -> None:
    assert isinstance(json.loads(file.read_text()), dict)
    assert (file.parents[1] / f"{file.stem}.py").exists(), "no benchmark of that name writes it"
