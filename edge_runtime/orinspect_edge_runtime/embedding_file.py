"""Embeddings as one file, joined from parts without holding more than one of them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime import durable

Part = tuple[NDArray[np.float32], NDArray[np.str_]]


def _read(files: Sequence[Path]) -> Iterator[Part]:
    """Embeddings [n, E] and images [n] of every part that has some."""
    for file in files:
        with np.load(file, allow_pickle=False) as entries:
            if len(entries["image"]):
                yield entries["embedding"], entries["image"]


def write_npz(out: Path, files: Sequence[Path]) -> int:
    """`embedding` float32 [N, E] and `image`, N texts, for np.load; returns N."""
    count, dim, length = 0, 0, 1
    for embedding, image in _read(files):
        count, dim = count + len(image), embedding.shape[1]
        length = max(length, image.dtype.itemsize // 4)

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
            _write_array(archive, "embedding", (count, dim), np.dtype(np.float32), (e for e, _ in _read(files)))
            _write_array(archive, "image", (count,), np.dtype(f"<U{length}"), (i for _, i in _read(files)))

    durable.write_file(out, write)
    return count


def _write_array(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], chunks: Iterator[NDArray[Any]]
) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
        np.lib.format.write_array_header_1_0(entry, header)
        for chunk in chunks:
            entry.write(np.ascontiguousarray(chunk, dtype).tobytes())


def write_parquet(out: Path, files: Sequence[Path]) -> int:
    """Columns `image` (text) and `embedding` (fixed-size list of float32), a row group a part; returns N.

    Needs the extra `parquet`. A file name that is no valid UTF-8 is written escaped.
    """
    import pyarrow as pa
    from pyarrow import parquet

    parts, count = _read(files), 0
    first = next(parts, None)
    dim = 1 if first is None else first[0].shape[1]
    schema = pa.schema([("image", pa.string()), ("embedding", pa.list_(pa.float32(), dim))])

    def write(file: IO[bytes]) -> None:
        nonlocal count
        with parquet.ParquetWriter(file, schema) as writer:
            for embedding, image in _read(files):
                names = [str(name).encode(errors="backslashreplace").decode() for name in image]
                rows = pa.FixedSizeListArray.from_arrays(pa.array(embedding.reshape(-1)), dim)
                writer.write_table(pa.table([pa.array(names, pa.string()), rows], schema))
                count += len(names)

    durable.write_file(out, write)
    return count


WRITERS: dict[str, Callable[[Path, Sequence[Path]], int]] = {".npz": write_npz, ".parquet": write_parquet}
