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


class Board:
    """The same rows for TensorBoard, in `folder`. Raises ConfigError as `board_writer` does."""

    def __init__(self, folder: Path, last_step: int) -> None:
        # Whatever a killed run wrote beyond its checkpoint is hidden.
        self.writer = board_writer()(str(folder), purge_step=last_step + 1)

    def append(self, row: Row) -> None:
        """Add one row."""
        for name, value in asdict(row).items():
            if name != "step":
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
    return ",".join(map(repr, asdict(row).values())) + "\n"
