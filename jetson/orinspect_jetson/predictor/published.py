"""The published latency rows behind the predictor: data/predictor/published.csv, typed, each with its source."""

from __future__ import annotations

import csv
import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from math import exp, log

from orinspect_jetson.predictor.fitting import Sample
from orinspect_jetson.predictor.layers import published_tables
from orinspect_jetson.predictor.operating_point import operating_point
from orinspect_jetson.predictor.roofline import work_of


@dataclass(frozen=True)
class Row:
    """One published latency. mode: as its source says it, or as its device is sold. harness: see roofline.breakdown.

    board_w: power of the whole board during the run, None where not given.
    """

    source: str
    year: int
    device: str
    mode: str
    table: str
    batch: int
    precision: str
    harness: str
    latency_ms: float
    board_w: float | None
    software: str
    replicates: int = 1

    @property
    def family(self) -> str:
        """Family of its network."""
        return published_tables()[self.table].family

    @property
    def group(self) -> tuple[str, str, str, str]:
        """What was measured in one sitting: a mislabelled mode concerns all of it."""
        return self.source, self.device, self.mode, self.family

    def sample(self, mode: str | None = None) -> Sample:
        """The row for the fit; mode: another one than its label."""
        table = published_tables()[self.table]
        point = operating_point(self.device, mode or self.mode)
        return Sample(work_of(table, self.precision, self.batch), point, self.harness, self.latency_ms)


@functools.cache
def published_rows() -> tuple[Row, ...]:
    """All rows of the table."""
    text = resources.files("orinspect_jetson").joinpath("data/predictor/published.csv").read_text(encoding="utf-8")
    return tuple(_row(row) for row in csv.DictReader(text.splitlines()))


def cells(rows: Sequence[Row]) -> list[Row]:
    """One row for everything that was measured alike: the geometric mean, with the number of its replicates.

    Submissions of the same network to the same benchmark on the same board would otherwise count several times.
    """
    found: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[row.device, row.mode, row.table, row.batch, row.precision, row.harness].append(row)
    return [
        replace(same[0], latency_ms=exp(sum(log(r.latency_ms) for r in same) / len(same)), replicates=len(same))
        for same in found.values()
    ]


def _row(row: dict[str, str]) -> Row:
    watts = float(row["board_w"]) if row["board_w"] else None
    return Row(
        source=row["source"],
        year=int(row["year"]),
        device=row["device"],
        mode=row["mode"],
        table=row["table"],
        batch=int(row["batch"]),
        precision=row["precision"],
        harness=row["harness"],
        latency_ms=float(row["latency_ms"]),
        board_w=watts,
        software=row["software"],
    )
