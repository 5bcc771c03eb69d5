"""Parts of a job: held against others, taken up after a kill, whole or not there, and gone at the end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.parts import Part, Parts, beside, fingerprint, packed, temporary

TOLD = {"job": "test"}


def parts_in(folder: Path, count: int = 5) -> list[Part[int]]:
    return [Part(folder / f"{number:05d}.npz", range(3)) for number in range(count)]


def run_until(last: int, reasons: Sequence[str] = ()) -> Any:
    """Does so many parts, then is killed."""

    def run(parts: Iterable[Any]) -> Iterator[tuple[Any, bytes]]:
        for number, part in enumerate(parts):
            if number == last:
                raise KeyboardInterrupt
            yield part, packed(skipped=np.array(reasons, np.str_))

    return run


def test_a_job_goes_on_where_it_was_and_leaves_nothing(tmp_path: Path) -> None:
    folder, seen = beside(tmp_path / "out.npz"), list[int]()
    with pytest.raises(KeyboardInterrupt), Parts(folder, TOLD, 15) as taken:
        taken.finish(parts_in(folder), run_until(2), seen.append)
    (folder / ".partial-half").write_bytes(b"half of a part")
    with Parts(folder, TOLD, 15) as taken:
        assert not (folder / ".partial-half").exists()
        taken.finish(parts_in(folder), run_until(9), seen.append)
        assert (taken.done, taken.resumed, taken.skipped()) == (15, 6, ())
    assert seen == [0, 3, 6, 6, 9, 12, 15]
    assert list(tmp_path.iterdir()) == []


def test_parts_of_another_job_are_thrown_away(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Parts(tmp_path / "p", TOLD, 15) as taken:
        taken.finish(parts_in(taken.folder), run_until(2), print)
    with Parts(tmp_path / "p", TOLD | {"recipe": "another"}, 15) as taken:
        assert sorted(path.name for path in taken.folder.iterdir()) == ["job.json", "lock"]


def test_two_processes_are_not_at_one_job(tmp_path: Path) -> None:
    with Parts(tmp_path / "p", TOLD, 3):
        with pytest.raises(InputError, match="another process is at a job there"), Parts(tmp_path / "p", TOLD, 3):
            pass
        assert (tmp_path / "p/job.json").exists()
    with Parts(tmp_path / "p", TOLD, 3):
        pass


def test_too_many_images_left_out_end_the_job(tmp_path: Path) -> None:
    taken = Parts(tmp_path / "p", TOLD, 15)
    with pytest.raises(InputError, match=r"2 of 15 images cannot be used, which is over 5 %: a\.png; b\.png"), taken:
        taken.finish(parts_in(taken.folder), run_until(9, ["a.png", "b.png"]), print)
    assert not taken.folder.exists()


def test_a_full_disk_loses_nothing(small_disk: Path) -> None:
    folder = small_disk / "p"
    content = packed(skipped=np.array([], np.str_), much=np.zeros(25_000))
    with pytest.raises(InputError, match="No space left") as told, Parts(folder, TOLD, 30) as taken:
        taken.finish(parts_in(folder, 10), lambda parts: ((part, content) for part in parts), print)
    assert len(str(told.value).splitlines()) == 1
    done = len(list(folder.glob("*.npz")))
    assert 0 < done < 10
    with Parts(folder, TOLD, 30) as taken:
        taken.finish(parts_in(folder, done), run_until(0), print)
        assert taken.resumed == 3 * done


@pytest.fixture
def unwritable() -> Parts:
    # Not below tmp_path: pytest's folders are private to the user who runs it. Nor may a plain user read the package.
    return Parts(Path("/usr/orinspect-test/p"), TOLD, 3)


def test_a_folder_that_cannot_be_written(unwritable: Parts, as_plain_user: None) -> None:
    with pytest.raises(InputError, match=r"cannot write /usr/.*(Permission denied|Read-only)"):
        unwritable.__enter__()


def test_the_temporary_folder_is_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert temporary(TOLD) == temporary(dict(TOLD)) != temporary({"job": "other"})
    own = temporary(TOLD).parent
    assert own.stat().st_mode & 0o777 == 0o700
    own.rmdir()
    own.symlink_to(tmp_path)
    with pytest.raises(InputError, match="belongs to somebody else"):
        temporary(TOLD)


def test_a_file_that_changed_is_another_one(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    missing = fingerprint([file])
    file.write_bytes(b"1")
    first = fingerprint([file])
    os.utime(file, ns=(0, 0))
    assert len({missing, first, fingerprint([file]), fingerprint([file, file])}) == 4
