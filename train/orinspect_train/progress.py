"""The progress of a job on the terminal: one line a stage, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Called with the name of a stage, the share of it that is done, and what there is to say.
Report = Callable[[str, float, str], None]
# Not a stage: what is said under this name stays on the screen as a line of its own.
WARNING = "warning"


@contextmanager
def progress(*, shown: bool = True) -> Iterator[Report]:
    """One line a stage, on stderr, with the newest figures; it fits into 80 columns."""
    from rich.console import Console
    from rich.progress import Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[text]}"), console=Console(stderr=True), disable=not shown) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, share: float, text: str) -> None:
            if stage == WARNING:
                bars.console.print(text, style="yellow", highlight=False)
                return
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=1.0, text="")
            bars.update(tasks[stage], completed=share, text=text)

        yield report
