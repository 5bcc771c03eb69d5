from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orinspect_edge_runtime.in_order import in_order


@given(st.lists(st.integers()), st.integers(1, 4), st.integers(0, 8))
def test_results_come_in_the_order_of_the_items(items: list[int], threads: int, ahead: int) -> None:
    done = [(item, future.result()) for item, future in in_order(lambda n: n + 1, items, threads=threads, ahead=ahead)]
    assert done == [(item, item + 1) for item in items]


def test_a_slow_first_item_is_not_overtaken() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.05 if item == 0 else 0)
        return item

    results = in_order(slow_first, range(20), threads=4, ahead=8)
    assert [future.result() for _, future in results] == list(range(20))


def test_no_more_is_begun_than_asked_ahead() -> None:
    begun: list[int] = []
    results = in_order(begun.append, range(100), threads=2, ahead=3)
    next(results)[1].result()
    time.sleep(0.05)
    assert len(begun) <= 4
    results.close()


def test_what_the_work_raises_reaches_its_own_item_only() -> None:
    def fails_on_two(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    results = dict(in_order(fails_on_two, range(4), threads=2, ahead=2))
    with pytest.raises(ValueError, match="two"):
        results[2].result()
    assert [results[n].result() for n in (0, 1, 3)] == [0, 1, 3]


def test_stopping_early_leaves_no_thread_behind() -> None:
    for _ in in_order(lambda n: n, range(100), threads=3, ahead=10):
        break
    assert not [t for t in threading.enumerate() if t.name.startswith("ahead")]
