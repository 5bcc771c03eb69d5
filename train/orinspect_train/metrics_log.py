"""metrics.csv: one row a logged step. A resumed run drops the rows that its checkpoint does not know of."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.errors import ConfigError


@dataclass(frozen=True)
class Row:
    """step: steps done. seconds: spent on them. lr: learning rate of the encoder in the step. signal: mean AUROC on drawn
    defects (alignment.py), in rows of a step where it was measured. See Health for the rest."""

    step: int
    seconds: float
    images_seen: int
    loss: float
    embedding_std: float
    effective_rank: float
    lr: float
    signal: float | None = None


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
        # A row that a kill cut short lacks values; only the last one may be empty.
        if all(values.get(name) for name in COLUMNS[:-1]) and values.get(COLUMNS[-1]) is not None:
            rows.append(Row(**{field.name: _read(str(field.type), values[field.name]) for field in fields(Row)}))
    return rows


class Board:
    """The same rows for TensorBoard, in `folder`. Raises ConfigError as `board_writer` does."""

    def __init__(self, folder: Path, last_step: int) -> None:
        # Whatever a killed run wrote beyond its checkpoint is hidden.
        self.writer = board_writer()(str(folder), purge_step=last_step + 1)

    def append(self, row: Row) -> None:
        """Add one row."""
        for name, value in asdict(row).items():
            if name != "step" and value is not None:
                self.writer.add_scalar(name, value, row.step)
        self.writer.flush()


def board_writer() -> Any:
    """torch's class that writes for TensorBoard. Raises ConfigError when TensorBoard's package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("tensorboard is not installed: run  pip install 'orinspect[tensorboard]'") from error
    return SummaryWriter


def _line(row: Row) -> str:
    # repr keeps every bit of a float.
    return ",".join("" if value is None else repr(value) for value in asdict(row).values()) + "\n"


def _read(kind: str, text: str) -> Any:
    return int(text) if kind == "int" else float(text) if text else None
