"""What `orinspect status` prints."""

from __future__ import annotations

from orinspect_edge_runtime.watch.command import status_lines


def test_a_status_is_told_in_words() -> None:
    told = {
        "began_at": 1.7e9,
        "told_at": 1.7e9 + 60,
        "camera": "",
        "trigger": None,
        "frames": 3,
        "outcomes": {"accept": 2, "reject": 1},
        "sinks": {"journal": {"delivered": 3, "trouble": ""}, "mqtt": {"delivered": 0, "trouble": "refused"}},
        "latency_ms": {"p50": 1.23456},
    }
    began, seen, *rest = status_lines(told)
    assert began.split()[0] == "began_at" and began.split()[1].startswith("2023-11-1")
    assert seen.split()[2][3:] == f"{(int(began.split()[2][3:5]) + 1) % 60:02}{began.split()[2][5:]}"
    assert [line.split(maxsplit=1)[1] for line in rest] == [
        "-",
        "-",
        "3",
        "accept 2, reject 1",
        "journal delivered 3, trouble -; mqtt delivered 0, trouble refused",
        "p50 1.235",
    ]
