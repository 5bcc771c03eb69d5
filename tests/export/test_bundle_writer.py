"""A bundle is published whole, or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_edge_runtime.manifest import EncoderSpec
from orinspect_edge_runtime.preprocess import PreprocessSpec
from orinspect_export.bundle_writer import write_bundle

SPEC = EncoderSpec("cells", "scratch", "none", (0.5,) * 3, (0.5,) * 3, (2, 3), (4, 4), 8, 12)
GRAPHS = {("patchcore", "fp32"): b"p" * 300_000, ("padim", "int8"): b"d" * 300_000}


def write(out: Path, **options: Any) -> None:
    write_bundle(
        out,
        SPEC,
        PreprocessSpec(64, 64),
        graphs=GRAPHS,
        golden=b"g" * 1000,
        parity={"int8": {"embedding_cosine_min": 0.99}},
        created_with="test",
        **options,
    )


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_what_is_written_opens_verified(tmp_path: Path) -> None:
    write(tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.manifest.precisions == ("fp32", "int8")
    for (head, precision), content in GRAPHS.items():
        assert bundle.read(bundle.manifest.graph(precision, head).file) == content
    assert bundle.manifest.parity == {"int8": {"embedding_cosine_min": 0.99}}
    assert names(tmp_path) - {"bundle"} == {f"bundle/{n}" for n in names(tmp_path / "bundle")}


def test_an_existing_bundle_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/mine").write_text("x")
    with pytest.raises(InputError, match="pass --force"):
        write(tmp_path / "bundle")
    assert names(tmp_path) == {"bundle", "bundle/mine"}
    write(tmp_path / "bundle", replace=True)
    assert "bundle/mine" not in names(tmp_path)
    Bundle.open(tmp_path / "bundle")


@pytest.mark.parametrize("error", [CheckFailed("no"), KeyboardInterrupt()])
def test_a_failed_check_publishes_nothing(error: BaseException, tmp_path: Path) -> None:
    def refuse(folder: Path) -> None:
        Bundle.open(folder)
        raise error

    with pytest.raises(type(error)):
        write(tmp_path / "bundle", verify=refuse)
    assert not names(tmp_path)


def test_a_failed_check_keeps_the_old_bundle(tmp_path: Path) -> None:
    write(tmp_path / "bundle")
    before = names(tmp_path)

    def refuse(folder: Path) -> None:
        raise CheckFailed("no")

    with pytest.raises(CheckFailed):
        write(tmp_path / "bundle", replace=True, verify=refuse)
    assert names(tmp_path) == before
    Bundle.open(tmp_path / "bundle")


@pytest.mark.parametrize("calls_before", range(8))
def test_a_disk_that_fills_up_leaves_nothing(
    calls_before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk refuses at every flush in turn, up to the last one before the bundle gets its name."""
    calls = iter(range(1000))
    flush = os.fsync

    def full(handle: int) -> None:
        if next(calls) >= calls_before:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        write(tmp_path / "bundle")
    assert not names(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(InputError, match="No space left on device"):
        write(small_disk / "bundle")
    assert not names(small_disk)
