"""Evaluation jobs: the same to the last bit however often they were killed, and on whatever engine they ran."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from orinspect_edge_runtime import durable, metrics
from orinspect_edge_runtime import evaluate as evaluation
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.dataset import read_dataset
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.evaluate import EvaluateJob, evaluate, evaluating
from orinspect_edge_runtime.evaluation import Evaluation, from_json
from orinspect_edge_runtime.labelled import LabelledImage
from orinspect_edge_runtime.parts import beside
from orinspect_edge_runtime.tiling import view_of
from orinspect_edge_runtime.verdict import Verdict


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "PART_IMAGES", 3)
    monkeypatch.setattr(evaluation, "MOST_COUNTS", 4)


@dataclass
class ByBrightness:
    """A detector that scores a picture by its brightest pixel; `maps` says whether it has a map."""

    bundle: Bundle
    maps: bool = True
    description: str = "fp32 on nothing"
    concurrency: int = 2
    recipe: Any = None

    def __post_init__(self) -> None:
        self.view = view_of(None, self.bundle.manifest)
        self.recipe = self.bundle.recipe()

    def __call__(self, frame: Any) -> Verdict:
        pixels = np.asarray(Image.fromarray(frame.pixels).resize((32, 32)))[:, :, 0].astype(np.float32)
        score = float(frame.pixels.max()) / 100
        return Verdict(score, 1.0, score > 1, pixels if self.maps else None, 0.5, int(score), 0.0, pixels[0])


@pytest.fixture
def by_brightness(fake_bundle: Bundle, tiny_recipe: Callable[..., Any]) -> Any:
    fake_bundle.add_recipe(tiny_recipe(threshold=1.0))
    return ByBrightness(Bundle.open(fake_bundle.path))


@pytest.fixture
def masked(pictures: Path, tmp_path: Path) -> Path:
    """The pictures with masks of four of the five blots."""
    data, mask = copytree(pictures, tmp_path / "data"), np.zeros((40, 36), np.uint8)
    mask[10:22, 12:24] = 255
    (data / "ground_truth/blot").mkdir(parents=True)
    for number in range(4):
        mask[number, 0] = 255
        Image.fromarray(mask).save(data / f"ground_truth/blot/{number:02d}_mask.png")
    return data


@pytest.fixture
def fitted(real_bundle: Path, tiny_recipe: Callable[..., Any], tmp_path: Path) -> Path:
    bundle = Bundle.open(copytree(real_bundle, tmp_path / "bundle"))
    digest = bundle.manifest.files["graphs/patchcore-fp32.onnx"].sha256
    return bundle.add_recipe(tiny_recipe(graph_sha256=digest, threshold=0.9)).path


def whole(result: Evaluation) -> str:
    return json.dumps(result.to_json())


@contextlib.contextmanager
def killed_at(write: int) -> Iterator[None]:
    """The write of that number, counted from now, does not come to pass."""
    plain, count = durable.write_bytes, 0

    def dies(path: Path, content: bytes) -> None:
        nonlocal count
        if count == write:
            raise KeyboardInterrupt
        count += 1
        plain(path, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "write_bytes", dies)
        with contextlib.suppress(KeyboardInterrupt):
            yield


def test_images_come_in_order_with_progress(by_brightness: Any, pictures: Path) -> None:
    seen: list[int] = []
    images = read_dataset(pictures)
    result = evaluate(by_brightness, images, seen.append)
    assert [image.image for image in result.images] == [str(image.path) for image in images]
    assert (result.auroc, result.localisation) == (1.0, None)
    assert [image.group for image in result.images] == [int(image.score) for image in result.images]
    assert seen == sorted(seen) and (seen[0], seen[-1]) == (0, len(images))


def test_unreadable_images_are_skipped_and_named_up_to_five_percent(
    by_brightness: Any, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_text("text")
    bad = LabelledImage(tmp_path / "bad.png", "blot", True)
    images = read_dataset(pictures) * 4
    result = evaluate(by_brightness, [bad, *images])
    assert [image.image for image in result.images] == [str(image.path) for image in images]
    assert [str(tmp_path / "bad.png") in reason for reason in result.skipped] == [True]
    with pytest.raises(InputError, match=r"[34] of 48 images cannot be used, which is over 5 %: .*bad\.png"):
        evaluate(by_brightness, [*images, *[bad] * 4])


def test_nothing_to_evaluate(by_brightness: Any) -> None:
    with pytest.raises(InputError):
        evaluate(by_brightness, [])


def test_masks_give_pixel_metrics(fitted: Path, masked: Path) -> None:
    with Detector.load(fitted) as detector:
        result = evaluate(detector, read_dataset(masked))
    assert result.localisation is not None
    assert result.localisation.masked_images == 4  # the fifth defective image has none
    assert result.localisation.pixel_auroc > 0.9
    assert set(result.localisation.aupro_30_by_kind) == {"blot"}
    assert from_json(json.loads(whole(result))) == result


def test_a_scorer_without_maps_has_no_pixel_metrics(by_brightness: Any, masked: Path) -> None:
    by_brightness.maps = False
    assert evaluate(by_brightness, read_dataset(masked)).localisation is None


def test_any_parts_and_any_kills_give_the_same(
    by_brightness: Any, masked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = EvaluateJob(by_brightness, read_dataset(masked))
    # As many examples as one bootstrap takes time.
    monkeypatch.setattr(metrics, "bootstrap_intervals", lambda metrics, *figures: [(0.0, 1.0)] * len(metrics))
    expected = whole(evaluate(by_brightness, job.images))

    @settings(max_examples=20)
    @given(
        st.lists(st.integers(0, 8), max_size=5), st.integers(1, 7), st.integers(1, 5), st.integers(0, 3 * 4 * 32 * 32)
    )
    def holds(kills: list[int], size: int, counts: int, masked_bytes: int) -> None:
        sizes = {"PART_IMAGES": size, "MOST_COUNTS": counts, "MASKED_BYTES": masked_bytes}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in sizes.items():
                patch.setattr(evaluation, name, value)
            for write in kills:
                with killed_at(write), evaluating(job, tmp_path / "parts"):
                    raise KeyboardInterrupt  # killed before the results were written
            with evaluating(job, tmp_path / "parts") as done:
                assert whole(done.evaluation) == expected
                assert done.resumed > 0 or max(kills, default=0) <= 1

    holds()
    assert not (tmp_path / "parts").exists()


@pytest.mark.parametrize("change", ["recipe", "backend", "picture", "list", "kind", "mask"])
def test_another_job_starts_anew(
    by_brightness: Any, masked: Path, tmp_path: Path, tiny_recipe: Callable[..., Any], change: str
) -> None:
    images = read_dataset(masked)
    with contextlib.suppress(KeyboardInterrupt), evaluating(EvaluateJob(by_brightness, images), tmp_path / "parts"):
        raise KeyboardInterrupt
    if change == "recipe":
        bundle = by_brightness.bundle.add_recipe(tiny_recipe(threshold=1.25))
        by_brightness = ByBrightness(bundle)
    elif change == "backend":
        by_brightness.description = "fp32 on another thing"
    elif change == "picture":
        os.utime(images[0].path, ns=(0, 0))
    elif change == "list":
        images = images[1:]
    elif change == "kind":
        images = [*images[:-1], LabelledImage(images[-1].path, "cut", True, images[-1].masks)]
    else:
        os.utime(next(image.masks[0] for image in images if image.masks), ns=(0, 0))
    with evaluating(EvaluateJob(by_brightness, images), tmp_path / "parts") as done:
        assert done.resumed == 0


def test_the_same_recipe_under_the_same_content_is_the_same_job(
    by_brightness: Any, masked: Path, tmp_path: Path
) -> None:
    job = EvaluateJob(by_brightness, read_dataset(masked))
    with contextlib.suppress(KeyboardInterrupt), evaluating(job, tmp_path / "parts"):
        raise KeyboardInterrupt
    other = ByBrightness(Bundle.open(copytree(by_brightness.bundle.path, tmp_path / "elsewhere")))
    with evaluating(EvaluateJob(other, job.images), tmp_path / "parts") as done:  # type: ignore[arg-type]
        assert done.resumed == len(job.images)


def test_killed_hard_at_any_moment(fitted: Path, masked: Path, tmp_path: Path, orinspect: Callable[..., Any]) -> None:
    out = tmp_path / "scores.csv"
    command = ["evaluate", fitted, masked, "--json", "--scores", out]
    expected, rows = orinspect(*command).out, out.read_bytes()
    out.unlink()
    code = (
        "import os, random, sys, threading, time; from orinspect_edge_runtime import cli, evaluate\n"
        "run = int(sys.argv.pop(1)); evaluate.PART_IMAGES, kill = 1, random.Random(run + 1)\n"
        "plain = evaluate.Parts._count\n"
        "def counted(*arguments):\n"
        "    plain(*arguments)\n"
        "    if run < 4 and kill.random() < 0.1: threading.Timer(kill.random() / 50, os.kill, (os.getpid(), 9)).start()\n"
        "evaluate.Parts._count = counted; cli.main()"
    )
    codes = []
    while not codes or codes[-1]:
        ran = subprocess.run(
            [sys.executable, "-c", code, str(len(codes)), *map(str, command)],
            capture_output=True,
            check=False,
            text=True,
        )
        codes.append(ran.returncode)
        assert ran.returncode in (0, -9), ran.stderr
        assert ran.returncode == 0 or beside(out).exists()
        assert len(codes) <= 5
    assert len(codes) > 1, "it was never killed"
    assert json.loads(ran.stdout) == json.loads(expected)
    assert out.read_bytes() == rows
    assert "had been done by an earlier run" in ran.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "data", "scores.csv"]


def test_rows_are_the_same_in_every_format(
    fitted: Path, masked: Path, tmp_path: Path, orinspect: Callable[..., Any]
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")
    for suffix in (".csv", ".jsonl", ".parquet"):
        ran = orinspect("evaluate", fitted, masked, "--json", "--scores", tmp_path / f"scores{suffix}")
        assert ran.code == 0 and "images" not in json.loads(ran.out)
    images = json.loads(orinspect("evaluate", fitted, masked, "--json").out)["images"]
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert parquet.read_table(tmp_path / "scores.parquet").to_pylist() == rows
    names = ("image", "kind", "is_defective", "score", "is_anomalous", "group")
    assert [{name: row[name] for name in names} for row in rows] == images
    assert all(row["p_value"] == 0.25 for row in rows if row["is_defective"]), "higher than all three good scores"
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines[0].split(",") == list(rows[0]) and len(lines) == 1 + len(rows)
    assert [float(line.split(",")[3]) for line in lines[1:]] == [row["score"] for row in rows]


def test_names_that_are_no_text_are_escaped(fitted: Path, masked: Path, orinspect: Callable[..., Any]) -> None:
    odd = masked / "test/blot" / os.fsdecode(b"part-\xff.png")
    Image.new("RGB", (40, 36), (250, 250, 250)).save(odd)
    out = masked / "scores.csv"
    assert orinspect("evaluate", fitted, masked, "--scores", out).code == 0
    assert "part-\\udcff.png" in out.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scores", "x.npz"), "--scores x.npz: scores are written as .parquet, .csv, .jsonl"),
        (("--engine", "dask"), "engine 'dask' is not known: use local or ray"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(
    fitted: Path, masked: Path, orinspect: Callable[..., Any], options: tuple[str, str], message: str
) -> None:
    ran = orinspect("evaluate", fitted, masked, *options)
    assert (ran.code, message in ran.err) == (2, True)


def test_a_full_disk_keeps_what_was_done(
    fitted: Path, masked: Path, small_disk: Path, orinspect: Callable[..., Any]
) -> None:
    (small_disk / "full").write_bytes(bytes(1_000_000))
    ran = orinspect("evaluate", fitted, masked, "--scores", small_disk / "s.csv")
    assert (ran.code, "No space left on device" in ran.err.splitlines()[-1]) == (2, True)
    (small_disk / "full").unlink()
    ran = orinspect("evaluate", fitted, masked, "--scores", small_disk / "s.csv")
    assert (ran.code, "had been done by an earlier run" in ran.err) == (0, True)
    assert [path.name for path in small_disk.iterdir()] == ["s.csv"]


def test_workers_that_would_judge_otherwise_are_refused(fitted: Path, masked: Path) -> None:
    with Detector.load(fitted) as detector:
        elsewhere = EvaluateJob(detector, read_dataset(masked)).elsewhere()
    with elsewhere.open():
        pass
    others = SimpleNamespace(**(vars(elsewhere) | {"judge": elsewhere.judge | {"backend": "fp32 on TensorRT"}}))
    with (
        pytest.raises(InputError, match=r"would judge otherwise \(backend .*, not fp32 on TensorRT\)"),
        evaluation.EvaluateElsewhere(**vars(others)).open(),
    ):
        pass
