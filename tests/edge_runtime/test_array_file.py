"""Arrays in aligned .npz files: nothing is copied, numpy reads them and writes what is read, no damage goes unseen."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from orinspect_edge_runtime import array_file

NAMES = st.text("abcdefgh.äß_", min_size=1, max_size=20)
KINDS = st.sampled_from([np.float32, np.float64, np.int32, np.uint8, np.bool_])
ARRAYS = st.dictionaries(NAMES, KINDS.flatmap(lambda kind: arrays_of.arrays(kind, arrays_of.array_shapes(min_side=0))))


def numpys_own(arrays: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@settings(max_examples=60, deadline=None)
@given(ARRAYS)
def test_what_is_written_is_read_here_and_by_numpy(arrays: dict[str, Any]) -> None:
    content = array_file.to_bytes(arrays)
    assert content == array_file.to_bytes(arrays)
    with np.load(io.BytesIO(content), allow_pickle=False) as by_numpy:
        for found in (array_file.from_bytes(content), array_file.from_bytes(numpys_own(arrays)), by_numpy):
            assert set(found) == set(arrays)
            for name, array in arrays.items():
                assert found[name].dtype == array.dtype
                np.testing.assert_array_equal(found[name], array)


def test_arrays_are_views_of_the_content_and_keep_their_order() -> None:
    arrays = {"bytes": np.zeros(3, np.uint8), "bank": np.arange(12, dtype=np.float32).reshape(4, 3).T}
    content = array_file.to_bytes(arrays)
    bank = array_file.from_bytes(content)["bank"]
    assert bank.flags.f_contiguous
    assert bank.flags.aligned
    assert not bank.flags.writeable
    assert np.shares_memory(bank, np.frombuffer(content, np.uint8))


@pytest.mark.parametrize("write", [array_file.to_bytes, numpys_own])
def test_a_changed_byte_is_an_error_or_changes_nothing(write: Any) -> None:
    arrays = {"one": np.arange(40, dtype=np.float32), "two": np.ones((2, 3), np.int32)}
    content, unseen = write(arrays), 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x11
        try:
            found = array_file.from_bytes(bytes(damaged))
        except Exception:  # the caller turns any into one line
            continue
        # Dates and padding say nothing; a name says what is missing.
        unseen += 1
        for name in set(found) & set(arrays):
            np.testing.assert_array_equal(found[name], arrays[name])
    assert unseen < len(content) / 2


def test_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        array_file.to_bytes({"it": np.array([{}])})
    with pytest.raises(ValueError, match="OBJECT array"):
        array_file.from_bytes(numpys_own({"it": np.array([{}])}))
