"""Whatever fails, and whenever: the name is as it was before, or holds the whole new content."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.errors import InputError

OLD, NEW = b"old" * 1000, b"new" * 1000


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(folder: Path, content: bytes = NEW) -> None:
    (folder / "a").write_bytes(content)
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/b").write_bytes(content)


def is_whole(folder: Path, content: bytes) -> bool:
    return [(folder / name).read_bytes() for name in ("a", "deep/er/b")] == [content, content]


def test_file_appears_with_its_folders(tmp_path: Path) -> None:
    durable.write_bytes(tmp_path / "x/y/file", NEW)
    assert (tmp_path / "x/y/file").read_bytes() == NEW
    assert listing(tmp_path / "x/y") == ["file"]


def test_file_is_replaced(tmp_path: Path) -> None:
    for content in (OLD, NEW, b""):
        durable.write_bytes(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content


def test_folder_appears_whole_and_only_at_the_end(tmp_path: Path) -> None:
    with durable.new_folder(tmp_path / "x/out") as folder:
        fill(folder)
        assert not (tmp_path / "x/out").exists()
        assert folder.parent == tmp_path / "x"
        assert folder.name.startswith(durable.PARTIAL_PREFIX)
    assert is_whole(tmp_path / "x/out", NEW)
    assert listing(tmp_path / "x") == ["out"]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        durable.write_bytes(tmp_path / "file", NEW)
        with durable.new_folder(tmp_path / "folder") as folder:
            fill(folder)
        after = os.umask(mask)
    finally:
        os.umask(before)
    assert after == mask
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "folder", "folder/a")}
    assert modes == {"file": 0o666 & ~mask, "folder": 0o777 & ~mask, "folder/a": 0o666 & ~mask}


def test_content_is_flushed_before_the_name_and_the_name_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def seen_fsync(handle: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def seen_replace(self: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "replace", seen_replace)
    durable.write_bytes(tmp_path / "file", NEW)
    assert calls == ["file", "rename", "folder"]
    calls.clear()
    with durable.new_folder(tmp_path / "folder") as folder:
        fill(folder)
    # Two files and three folders, then the rename, then the folder that holds the name.
    assert sorted(calls[:-2]) == ["file"] * 2 + ["folder"] * 3
    assert calls[-2:] == ["rename", "folder"]


def test_new_parent_folders_are_flushed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(durable, "fsync_folder", flushed.append)
    durable.write_bytes(tmp_path / "x/y/file", NEW)
    assert flushed == [tmp_path, tmp_path / "x", tmp_path / "x/y"]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@contextlib.contextmanager
def nothing_changed(folder: Path) -> Iterator[None]:
    """Write OLD under `file` and `folder`, expect an InputError about a full disk and find OLD again, alone."""
    durable.write_bytes(folder / "file", OLD)
    (folder / "folder").mkdir()
    fill(folder / "folder", OLD)
    with pytest.raises(InputError, match="No space left on device; nothing was changed") as caught:
        yield
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert (folder / "file").read_bytes() == OLD
    assert is_whole(folder / "folder", OLD)
    assert listing(folder) == ["file", "folder"]


def test_full_disk_while_the_content_is_written(tmp_path: Path) -> None:
    with nothing_changed(tmp_path):
        durable.write_file(tmp_path / "file", lambda file: (file.write(NEW), full()))
    shutil.rmtree(tmp_path / "folder")
    with nothing_changed(tmp_path), durable.new_folder(tmp_path / "folder", replace=True) as folder:
        fill(folder)
        full()


def test_full_disk_when_the_content_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with nothing_changed(tmp_path):
        monkeypatch.setattr(os, "fsync", full)
        durable.write_bytes(tmp_path / "file", NEW)


@pytest.mark.parametrize("number", range(5))
def test_full_disk_at_each_flush_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    fsync, calls = os.fsync, iter(range(1000))
    with nothing_changed(tmp_path), durable.new_folder(tmp_path / "folder", replace=True) as folder:
        fill(folder)
        monkeypatch.setattr(os, "fsync", lambda handle: full() if next(calls) == number else fsync(handle))


@pytest.mark.parametrize("number", [0, 1])
def test_folder_comes_back_when_a_rename_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    calls, rename = iter(range(1000)), Path.replace

    def replace(self: Path, target: Path) -> Path:
        if next(calls) == number:
            full()
        return rename(self, target)

    with nothing_changed(tmp_path), durable.new_folder(tmp_path / "folder", replace=True) as folder:
        fill(folder)
        monkeypatch.setattr(Path, "replace", replace)


def test_a_name_that_cannot_be_flushed_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "fsync_folder", full)
    with pytest.raises(InputError, match="was written, but may not survive a power cut: No space left"):
        durable.write_bytes(tmp_path / "file", NEW)
    assert (tmp_path / "file").read_bytes() == NEW
    assert listing(tmp_path) == ["file"]


def test_other_errors_pass_and_leave_nothing(tmp_path: Path) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        durable.write_file(tmp_path / "file", interrupted)
    with pytest.raises(ZeroDivisionError), durable.new_folder(tmp_path / "folder") as folder:
        fill(folder)
        _ = 1 / 0
    assert listing(tmp_path) == []


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_existing_name_is_refused_without_replace(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    out.mkdir() if kind == "folder" else out.write_bytes(OLD)
    with pytest.raises(InputError, match=r"exists already: .*--force"), durable.new_folder(out):
        pytest.fail("the body must not run")
    assert listing(tmp_path) == ["out"]


def test_of_two_writers_of_a_new_folder_the_second_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"), durable.new_folder(tmp_path / "out") as second:
        with durable.new_folder(tmp_path / "out") as first:
            fill(first, OLD)
        fill(second)
    assert is_whole(tmp_path / "out", OLD)
    assert listing(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["folder", "file", "link", "dangling link"])
def test_replace_takes_the_place_of_anything(tmp_path: Path, kind: str) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    fill(other, OLD)
    if kind == "folder":
        shutil.copytree(other, out)
    elif kind == "file":
        out.write_bytes(OLD)
    else:
        out.symlink_to(other if kind == "link" else tmp_path / "nowhere")
    with durable.new_folder(out, replace=True) as folder:
        fill(folder)
    assert is_whole(out, NEW)
    assert is_whole(other, OLD), "a link is replaced, not what it leads to"
    assert listing(tmp_path) == ["other", "out"]


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(InputError, match="nothing was changed"):
        durable.write_bytes(tmp_path / "file/below", NEW)
    with pytest.raises(InputError, match="nothing was changed"), durable.new_folder(tmp_path / "file/below"):
        pytest.fail("the body must not run")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="nothing was changed"):
        durable.write_bytes(tmp_path / "folder", NEW)
    assert listing(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == OLD


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="File name too long"):
        durable.write_bytes(tmp_path / ("x" * 300), NEW)
    with pytest.raises(InputError, match="File name too long"), durable.new_folder(tmp_path / ("x" * 300)):
        pytest.fail("the body must not run")
    assert listing(tmp_path) == []


@pytest.mark.usefixtures("as_plain_user")
@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users here")
def test_a_folder_without_write_permission() -> None:
    # Not below tmp_path: pytest's folders are private to the user who runs it.
    with pytest.raises(InputError, match=r"Permission denied|Read-only"):
        durable.write_bytes(Path("/usr/orinspect-test/file"), NEW)
    with (
        pytest.raises(InputError, match=r"Permission denied|Read-only"),
        durable.new_folder(Path("/usr/orinspect-test")),
    ):
        pytest.fail("the body must not run")
    assert not Path("/usr/orinspect-test").exists()


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    big = bytes(3 << 20)
    with nothing_changed(small_disk):
        durable.write_bytes(small_disk / "file", big)
    shutil.rmtree(small_disk / "folder")
    with nothing_changed(small_disk), durable.new_folder(small_disk / "folder", replace=True) as folder:
        fill(folder)
        (folder / "big").write_bytes(big)
    durable.write_bytes(small_disk / "file", NEW)
    assert (small_disk / "file").read_bytes() == NEW, "the failed attempts left no room taken"


def test_a_read_only_disk(small_disk: Path) -> None:
    durable.write_bytes(small_disk / "file", OLD)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(InputError, match="Read-only file system; nothing was changed"):
        durable.write_bytes(small_disk / "file", NEW)
    with pytest.raises(InputError, match="Read-only file system; nothing was changed"):
        durable.write_bytes(small_disk / "x/file", NEW)
    assert (small_disk / "file").read_bytes() == OLD


WRITER = """
import sys
from pathlib import Path
from orinspect_edge_runtime import durable
root, number = Path(sys.argv[1]), 0
print("ready", flush=True)
while True:
    number += 1
    content = b"%d" % number * 20000
    durable.write_bytes(root / "file", content)
    with durable.new_folder(root / "folder", replace=True) as folder:
        (folder / "a").write_bytes(content)
        (folder / "b").write_bytes(content)
"""


def kill_after(script: str, arguments: list[str], seconds: float) -> None:
    """Start a Python script, wait for its word `ready`, and kill -9 it `seconds` later."""
    with subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def a_number_repeated(content: bytes) -> bool:
    length = len(content) // 20000
    return length > 0 and content == content[:length] * 20000


def test_killed_at_any_moment_nothing_is_half_written(tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(20):
        kill_after(WRITER, [str(tmp_path)], rng.uniform(0.001, 0.03))
        names = listing(tmp_path)
        assert all(name in ("file", "folder") or name.startswith(durable.PARTIAL_PREFIX) for name in names)
        if "file" in names:
            assert a_number_repeated((tmp_path / "file").read_bytes())
        if "folder" in names:
            assert listing(tmp_path / "folder") == ["a", "b"]
            content = (tmp_path / "folder/a").read_bytes()
            assert a_number_repeated(content)
            assert (tmp_path / "folder/b").read_bytes() == content
    assert "file" in names


def test_fsync_folder_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        durable.fsync_folder(tmp_path / "file")
