"""metrics.csv: one row a logged step. A resumed run drops the rows that its checkpoint does not know of."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from orinspect_edge_runtime import durable


@dataclass(frozen=True)
class Row:
    """step: steps done. seconds: spent on them. lr: learning rate of the encoder in the step. See Health for the rest."""

    step: int
    seconds: float
    images_seen: int
    loss: float
    embedding_std: float
    effective_rank: float
    lr: float


COLUMNS = tuple(field.name for field in fields(Row))


def start_log(path: Path, last_step: int) -> None:
    """Leave the header and the rows up to `last_step`; a row cut short by a kill goes too."""
    kept = [row for row in read_log(path) if row.step <= last_step]
    durable.write_bytes(path, (",".join(COLUMNS) + "\n" + "".join(map(_line, kept))).encode())


def append(path: Path, row: Row) -> None:
    """Add one row."""
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(_line(row))


def read_log(path: Path) -> list[Row]:
    """All whole rows of the file; none when there is no file."""
    if not path.exists():
        return []
    rows = []
    for values in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))):
        if all(values.get(name) for name in COLUMNS):
            numbers: dict[str, Any] = {f.name: (int if f.type == "int" else float)(values[f.name]) for f in fields(Row)}
            rows.append(Row(**numbers))
    return rows


def _line(row: Row) -> str:
    # repr keeps every bit of a float.
    return ",".join(map(repr, asdict(row).values())) + "\n"
