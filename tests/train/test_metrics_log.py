from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orinspect_edge_runtime.errors import ConfigError
from orinspect_train.metrics_log import COLUMNS, Board, Row, append, board_writer, read_log, start_log

NUMBERS = st.floats(allow_nan=False)
ROWS = st.builds(Row, st.integers(0), NUMBERS, st.integers(0), NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.none() | NUMBERS)


def row(step: int) -> Row:
    return Row(step, 1.5, 8 * step, 0.1 + 0.2, 0.5, 20.0, 1e-4)


@given(st.lists(ROWS, max_size=5))
def test_rows_survive_the_file_bit_for_bit(tmp_path_factory: object, rows: list[Row]) -> None:
    file = tmp_path_factory.mktemp("log") / "metrics.csv"  # type: ignore[attr-defined]
    start_log(file, 0)
    for one in rows:
        append(file, one)
    assert read_log(file) == rows


def test_a_resumed_run_drops_what_its_checkpoint_does_not_know(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    start_log(file, 0)
    for step in range(1, 6):
        append(file, row(step))
    with file.open("a") as log:
        log.write("6,1.5,4")
    start_log(file, 3)
    append(file, row(4))
    assert read_log(file) == [row(step) for step in range(1, 5)]
    assert file.read_text().startswith("step,seconds,images_seen,loss,embedding_std,effective_rank,lr,signal\n")


def test_there_is_no_log_before_the_run(tmp_path: Path) -> None:
    assert read_log(tmp_path / "metrics.csv") == []


def test_a_resumed_board_hides_what_its_checkpoint_does_not_know(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    first = Board(tmp_path, 0)
    for step in range(1, 6):
        first.append(row(step))
    resumed = Board(tmp_path, 3)
    resumed.append(dataclasses.replace(row(4), loss=7.0, signal=0.75))
    found = events.EventAccumulator(str(tmp_path))
    found.Reload()
    assert set(found.Tags()["scalars"]) == set(COLUMNS) - {"step"}
    losses = [(event.step, event.value) for event in found.Scalars("loss")]
    assert losses == [(1, pytest.approx(0.3)), (2, pytest.approx(0.3)), (3, pytest.approx(0.3)), (4, 7.0)]
    assert [(event.step, event.value) for event in found.Scalars("signal")] == [(4, 0.75)]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'orinspect\[tensorboard\]'"):
        board_writer()
