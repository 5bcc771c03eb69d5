from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from orinspect_train.metrics_log import Row, append, read_log, start_log

NUMBERS = st.floats(allow_nan=False)
ROWS = st.builds(Row, st.integers(0), NUMBERS, st.integers(0), NUMBERS, NUMBERS, NUMBERS, NUMBERS)


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
    assert file.read_text().startswith("step,seconds,images_seen,loss,embedding_std,effective_rank,lr\n")


def test_there_is_no_log_before_the_run(tmp_path: Path) -> None:
    assert read_log(tmp_path / "metrics.csv") == []
