"""Embeddings of many images: in parts, resumed after a kill, the same in every format and on every engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orinspect_edge_runtime import embed as embedding
from orinspect_edge_runtime.embed import EmbedJob, embed_images
from orinspect_edge_runtime.embedding_file import write_npz
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import list_images


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "PART_IMAGES", 4)


@pytest.fixture
def job(real_bundle: Path, pictures: Path, tmp_path: Path, small_parts: None) -> EmbedJob:
    return EmbedJob(real_bundle, list_images([pictures]), tmp_path / "new/all.npz")


def read(out: Path) -> tuple[np.ndarray, list[str]]:
    with np.load(out) as entries:
        return entries["embedding"], [str(name) for name in entries["image"]]


def test_parts_joined_are_the_whole(job: EmbedJob, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    done = embed_images(job, seen.append)
    assert (done.count, done.skipped, done.resumed) == (35, (), 0)
    assert seen == [0, *range(4, 35, 4), 35]
    rows, names = read(job.out)
    assert rows.shape == (35, 9) and names == [str(path) for path in job.images]
    assert [path.name for path in job.out.parent.iterdir()] == ["all.npz"], "the parts are gone"
    monkeypatch.setattr(embedding, "PART_IMAGES", 1000)
    whole = EmbedJob(job.bundle, job.images, job.out.with_name("whole.npz"))
    embed_images(whole)
    assert np.array_equal(read(whole.out)[0], rows)


def test_parquet_holds_the_same(job: EmbedJob) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")
    embed_images(job)
    other = EmbedJob(job.bundle, job.images, job.out.with_suffix(".parquet"))
    assert embed_images(other).count == 35
    table = parquet.read_table(other.out)
    rows, names = read(job.out)
    assert table["image"].to_pylist() == names
    assert np.array_equal(np.array(table["embedding"].to_pylist(), np.float32), rows)
    assert parquet.ParquetFile(other.out).num_row_groups == 9


def test_a_killed_job_goes_on_where_it_was(job: EmbedJob, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = EmbedJob(job.bundle, job.images, job.out.with_name("whole.npz"))
    embed_images(whole)
    part, written = embedding.embed_part, []

    def killed(*arguments: Any) -> Any:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(arguments)
        return part(*arguments)

    monkeypatch.setattr(embedding, "embed_part", killed)
    with pytest.raises(KeyboardInterrupt):
        embed_images(job)
    assert not job.out.exists()
    monkeypatch.setattr(embedding, "embed_part", part)
    assert embed_images(job).resumed == 12
    assert read(job.out)[1] == read(whole.out)[1] and np.array_equal(read(job.out)[0], read(whole.out)[0])


def test_a_process_killed_hard_leaves_parts_that_are_whole(job: EmbedJob) -> None:
    code = (
        "import os, sys; from pathlib import Path; from orinspect_edge_runtime import durable, embed\n"
        "from orinspect_edge_runtime.preprocess import list_images\n"
        "embed.PART_IMAGES = 4; write, count = durable.write_file, []\n"
        "def dies(path, action):\n"
        "    count.append(path)\n"
        "    write(path, (lambda file: (file.write(b'half'), file.flush(), os._exit(9))) if len(count) == 4 else action)\n"
        "durable.write_file = dies\n"
        "embed.embed_images(embed.EmbedJob(Path(sys.argv[1]), list_images([Path(sys.argv[2])]), Path(sys.argv[3])))"
    )
    root = os.path.commonpath([str(path) for path in job.images])
    died = subprocess.run([sys.executable, "-c", code, str(job.bundle), root, str(job.out)], check=False)
    assert died.returncode == 9
    done = embed_images(job)
    assert (done.resumed, done.count) == (8, 35)


def test_parts_of_another_job_are_not_taken_up(job: EmbedJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "WRITERS", {".npz": lambda out, files: sys.exit(3)})
    with pytest.raises(SystemExit):
        embed_images(job)
    monkeypatch.setattr(embedding, "WRITERS", {".npz": write_npz})
    done = embed_images(EmbedJob(job.bundle, job.images[:-1], job.out))
    assert (done.resumed, done.count) == (0, 34)


def test_unreadable_images_are_left_out_and_named(job: EmbedJob, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    done = embed_images(EmbedJob(job.bundle, [bad, *job.images], job.out))
    assert done.count == 35 and len(done.skipped) == 1 and str(bad) in done.skipped[0]
    with pytest.raises(InputError, match=r"over 5 %.*bad\.png"):
        embed_images(EmbedJob(job.bundle, [bad, bad, *job.images], job.out.with_name("many.npz")))
    assert [path.name for path in job.out.parent.iterdir()] == ["all.npz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"out": Path("x.csv")}, "npz or .parquet"), ({"precision": "fp16"}, "no fp16 graph")],
)
def test_what_cannot_be_done_is_said_at_once(job: EmbedJob, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        embed_images(EmbedJob(**(vars(job) | change)))
    assert not job.out.parent.exists()


def test_an_unknown_engine(job: EmbedJob) -> None:
    with pytest.raises(InputError, match="use local or ray"):
        embed_images(job, engine="dask")


def test_names_that_are_no_text(job: EmbedJob, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")
    odd = tmp_path / os.fsdecode(b"part-\xff.png")
    Image.new("RGB", (20, 20)).save(odd)
    out = tmp_path / "odd.parquet"
    embed_images(EmbedJob(job.bundle, [odd], out))
    assert parquet.read_table(out)["image"].to_pylist() == [f"{tmp_path}/part-\\udcff.png"]


def test_on_a_ray_cluster_of_this_machine(
    job: EmbedJob, tmp_path: Path, orinspect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="the extra `ray` IS NOT INSTALLED: --engine ray was not tested")
    embed_images(job)
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        other = EmbedJob(job.bundle, job.images, tmp_path / "ray.npz")
        assert embed_images(other, engine="ray").count == 35
    finally:
        ray.shutdown()
    assert np.array_equal(read(other.out)[0], read(job.out)[0]) and read(other.out)[1] == read(job.out)[1]
