"""Progress on stderr: a bar for a person, nothing when stderr is no terminal and the job is short."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Yield the items while a bar counts them."""
    with _progress() as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            progress.advance(task)


@contextlib.contextmanager
def shares(description: str) -> Iterator[Callable[[float], None]]:
    """A bar in percent: call what this yields with the share done, 0..1."""
    with _progress() as progress:
        task = progress.add_task(description, total=100)

        def show(share: float) -> None:
            progress.update(task, completed=round(100 * share))

        yield show
        progress.update(task, completed=100)


@contextlib.contextmanager
def counted(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar of `total` things: call what this yields with the number done."""
    with _progress() as progress:
        task = progress.add_task(description, total=total)
        yield lambda done: progress.update(task, completed=done)
