"""Scores of many images as a file of rows, written without holding more than some of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.scored_images import ScoredImages
from orinspect_edge_runtime.threshold import p_values

ROWS_AT_ONCE = 4096
# Columns and their types in Parquet; the p-value is that of `score --explain`.
COLUMNS = {
    "image": "string",
    "kind": "string",
    "is_defective": "bool",
    "score": "double",
    "p_value": "double",
    "is_anomalous": "bool",
    "group": "int32",
}
Row = dict[str, Any]


def need_writer(path: Path) -> None:
    """Raises InputError for an ending without a writer; ModuleNotFoundError, told as a missing extra, without pyarrow."""
    if path.suffix not in WRITERS:
        raise InputError(f"--scores {path}: scores are written as {', '.join(WRITERS)}")
    if path.suffix == ".parquet":
        import pyarrow  # noqa: F401


def write_scores(path: Path, images: ScoredImages, calibration_scores: NDArray[Any]) -> None:
    """One row an image, in their order; a name that is no valid UTF-8 is written escaped. calibration_scores: the recipe's.

    Raises InputError when the disk refuses.
    """
    durable.write_file(path, lambda file: WRITERS[path.suffix](file, _chunks(images, calibration_scores)))


def _chunks(images: ScoredImages, calibration_scores: NDArray[Any]) -> Iterator[list[Row]]:
    for begin in range(0, len(images), ROWS_AT_ONCE):
        some = images[begin : begin + ROWS_AT_ONCE]
        values = p_values(calibration_scores, some.score)
        yield [_row(vars(one) | {"p_value": float(value)}) for one, value in zip(some, values, strict=True)]


def _row(values: Row) -> Row:
    return {name: _text(values[name]) if COLUMNS[name] == "string" else values[name] for name in COLUMNS}


def _text(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


def _csv(file: IO[bytes], chunks: Iterator[list[Row]]) -> None:
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    writer = csv.DictWriter(text, list(COLUMNS))
    writer.writeheader()
    for rows in chunks:
        writer.writerows(rows)
    text.detach()


def _jsonl(file: IO[bytes], chunks: Iterator[list[Row]]) -> None:
    for rows in chunks:
        file.writelines(json.dumps(row).encode() + b"\n" for row in rows)


def _parquet(file: IO[bytes], chunks: Iterator[list[Row]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema(COLUMNS)
    with parquet.ParquetWriter(file, schema) as writer:
        for rows in chunks:
            writer.write_table(pa.Table.from_pylist(rows, schema))


WRITERS: dict[str, Callable[[IO[bytes], Iterator[list[Row]]], None]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _jsonl,
}
