"""Work done in threads ahead of its use, results in the order of the items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Each item with its finished work; `Future.result()` gives the value or raises what the work raised.

    At most `ahead` items beyond the one in use are under way, so memory is bounded however many there are.
    """
    under_way: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="ahead") as pool:
        try:
            for item in items:
                under_way.append((item, pool.submit(work, item)))
                if len(under_way) > ahead:
                    yield under_way.popleft()
            while under_way:
                yield under_way.popleft()
        finally:
            # The user of the results stopped: what has not begun need not begin.
            for _, future in under_way:
                future.cancel()
