"""Hostile requests and configurations: a few hundred of the 10^5 that benchmarks/http_fuzz.py sends."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra `watch` is not installed")
http_fuzz = pytest.importorskip("http_fuzz", reason="benchmarks/ is not here")

Site = Any


def test_requests_crash_nothing(open_site: Callable[..., Site], caplog: pytest.LogCaptureFixture) -> None:
    site = open_site()
    paths, answers = list(site.get("/openapi.json")["paths"]), Counter[str]()
    attackers = [http_fuzz.Attacker(site.port, random.Random(seed), paths) for seed in range(10)]
    with ThreadPoolExecutor(10) as pool:
        for seen in pool.map(lambda one: one.attack(30), attackers):
            answers += seen
    assert answers.total() == 300
    assert not [status for status in answers if status.startswith("5")]
    assert answers["200"] > 5 and answers["400"] > 50, "it reaches the pages, and is refused"
    assert [record for record in caplog.records if record.exc_info] == []
    assert site.feed("test/good/00.png")[0]["outcome"] == "accept"


def test_configurations_are_taken_or_refused_in_a_sentence() -> None:
    found = http_fuzz.configurations(random.Random(2), 1000)
    assert found["tried"] == 1000 and 5 < found["taken"] < 900
