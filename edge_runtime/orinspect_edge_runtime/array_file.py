"""Arrays by name in an .npz file whose entries lie aligned, so that they are read without a copy of them.

A large memory bank would otherwise be in memory twice while its recipe is read, and numpy's own files, which are read as
well, take that copy. Entries are stored as they are, each under the checksum that zip files have. No pickle.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# That of memory from malloc: entries of a file read into it then lie at multiples of this.
ALIGNMENT = 16
# Of zip's "extra" fields: the one that Android's zipalign pads with. Its header is the number and the length.
PADDING, PADDING_HEADER = 0xD935, struct.Struct("<HH")
# Fixed part of an entry's own header, at whose end the lengths of name and "extra" stand.
LOCAL_HEADER, LENGTHS = 30, struct.Struct("<26xHH")


def to_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The file; equal arrays give equal bytes. Raises ValueError for an array of Python objects."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as entries:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            begin = file.tell() + LOCAL_HEADER + len(entry.filename.encode()) + PADDING_HEADER.size
            gap = -begin % ALIGNMENT
            entry.extra = PADDING_HEADER.pack(PADDING, gap) + bytes(gap)
            with entries.open(entry, "w") as opened:
                np.lib.format.write_array(opened, array, allow_pickle=False)
    return file.getvalue()


def from_bytes(content: bytes) -> dict[str, NDArray[Any]]:
    """Arrays that cannot be written to: views of `content`, or copies where an entry is not aligned.

    Raises ValueError, or an error of zipfile or struct, for content that is not whole or not such a file.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as entries:
        return {entry.filename.removesuffix(".npy"): _array(content, entry) for entry in entries.infolist()}


def _array(content: bytes, entry: zipfile.ZipInfo) -> NDArray[Any]:
    begin = entry.header_offset + LOCAL_HEADER + sum(LENGTHS.unpack_from(content, entry.header_offset))
    stored = memoryview(content)[begin : begin + entry.file_size]
    if entry.compress_type != zipfile.ZIP_STORED or zlib.crc32(stored) != entry.CRC:
        raise ValueError(f"{entry.filename} is damaged")
    header = io.BytesIO(stored[:4096])
    if np.lib.format.read_magic(header) != (1, 0):
        raise ValueError(f"{entry.filename} is of an unknown kind")
    shape, by_columns, kind = np.lib.format.read_array_header_1_0(header)
    values = np.frombuffer(stored[header.tell() :], kind)
    if not values.flags.aligned:
        values = values.copy()
        values.flags.writeable = False
    return values.reshape(shape, order="F" if by_columns else "C")
