"""`orinspect bench` as a command: what it writes, compares and refuses."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from orinspect_edge_runtime.bench import cold, scenarios
from orinspect_edge_runtime.bench.page import markdown
from orinspect_edge_runtime.bench.result import read_result, remarks
from orinspect_edge_runtime.bundle import Bundle

Run = Callable[..., Any]
RAN = ("--runs", 50, "--threads", 1, "--cold-starts", 0)


@pytest.fixture
def saved(orinspect: Run, real_bundle: Path, tmp_path: Path) -> Path:
    """A result of the tiny bundle."""
    file = tmp_path / "saved.json"
    ran = orinspect("bench", real_bundle, *RAN, "--out", file)
    assert ran.code == 0, ran.err
    return file


def changed(file: Path, name: str, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a result, changed."""
    result = json.loads(file.read_text())
    change(result)
    target = file.parent / name
    target.write_text(json.dumps(result))
    return target


def scaled(file: Path, factor: float) -> Path:
    """A copy whose calls took that much longer, each with a little noise of its own."""

    def change(result: dict[str, Any]) -> None:
        rounds = result["times_ms"]["fp32"]
        result["times_ms"]["fp32"] = [[5 * factor * (1 + 0.001 * at) for at in range(len(r))] for r in rounds]

    return changed(file, f"{factor}.json", change)


def one_line(ran: Any, code: int = 2) -> str:
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    (line,) = [line for line in ran.err.splitlines() if line.startswith("orinspect: ")]
    return str(line)


def test_everything_is_written_and_reads_back(
    orinspect: Run, real_bundle: Path, tiny_recipe: Run, pictures: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="the extra `report` is not installed")
    bundle = copytree(real_bundle, tmp_path / "bundle")
    opened = Bundle.open(bundle)
    opened.add_recipe(tiny_recipe(graph_sha256=opened.manifest.files["graphs/patchcore-fp32.onnx"].sha256))
    files = {kind: tmp_path / f"new/bench.{kind}" for kind in ("out", "markdown", "html")}
    options = [part for kind, file in files.items() for part in (f"--{kind}", file)]
    ran = orinspect(
        "bench", bundle, "--runs", 50, "--recipe", "default", "--images", pictures / "test", *options, "--json"
    )
    assert ran.code == 0, ran.err
    result = json.loads(files["out"].read_text())
    assert json.loads(ran.out) == result == read_result(files["out"])
    stages = result["stages"]["p50"]["fp32"]
    assert list(stages) == ["decode_ms", "resize_ms", "engine_ms", "post_ms", "total_ms"]
    assert all(value > 0 for value in stages.values())
    assert result["stages"]["images"] == 11
    (start,) = result["cold_start"]["fp32"]
    assert 0 < start["cpu_s"] < 60
    assert 0 < start["wall_s"] < 600
    assert 20 < start["peak_mib"] < 2000
    text = files["markdown"].read_text()
    assert text == markdown(result)
    for part in ("## Latency", "## Stages of one verdict", "## Cold start", "not measured here", "copy"):
        assert (part in text) == (part != "copy"), "a copy that nobody timed is absent, not 0"
    assert f"| fp32 | {result['latencies'][0]['p50_ms']:.2f} |" in text
    page = files["html"].read_text()
    assert page.count("<svg") == 2
    assert not re.search(r"(src|href)=[\"']?http|<script", page)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["bench.html", "bench.markdown", "bench.out"]
    # A saved result is drawn again without measuring.
    saved = files["out"].rename(tmp_path / "new/saved.json")
    again = orinspect("bench", saved, "--html", tmp_path / "again.html", "--markdown", tmp_path / "again.md")
    assert again.code == 0, again.err
    assert (tmp_path / "again.html").read_text() == page
    assert (tmp_path / "again.md").read_text() == text


def test_a_recipe_without_images_takes_a_golden_frame(
    orinspect: Run, real_bundle: Path, tiny_recipe: Run, tmp_path: Path
) -> None:
    bundle = copytree(real_bundle, tmp_path / "bundle")
    opened = Bundle.open(bundle)
    opened.add_recipe(tiny_recipe(graph_sha256=opened.manifest.files["graphs/patchcore-fp32.onnx"].sha256))
    result = json.loads(orinspect("bench", bundle, *RAN, "--recipe", "default", "--json").out)
    assert "golden frame" in result["stages"]["source"]
    assert "post_ms" in result["stages"]["p50"]["fp32"]
    assert json.loads(orinspect("bench", bundle, *RAN, "--json").out)["stages"] is None


def test_the_verdict_on_the_run_is_printed(orinspect: Run, real_bundle: Path) -> None:
    out = orinspect("bench", real_bundle, *RAN).out
    assert "\nclean:" in out or "\nnot clean:\n  - " in out


def test_the_server_scenario(orinspect: Run, real_bundle: Path) -> None:
    ran = orinspect("bench", real_bundle, *RAN, "--scenario", "server", "--rate", 500, "--bound-ms", 50)
    assert ran.code == 0, ran.err
    assert re.search(r"server, fp32: .* in time \d+\.\d% within 50 ms, p99 ms", ran.out)


def test_a_sweep(orinspect: Run, real_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `report` is not installed")
    files = ("--out", tmp_path / "s.json", "--html", tmp_path / "s.html", "--markdown", tmp_path / "s.md")
    ran = orinspect("bench", real_bundle, "--runs", 10, "--sweep", "--batches", "1,3", *files)
    assert ran.code == 0, ran.err
    assert [result["batch"] for result in json.loads((tmp_path / "s.json").read_text())["results"]] == [1, 3]
    assert "fp32 batch 3: " in ran.out
    assert "| fp32 | 3 |" in (tmp_path / "s.md").read_text()
    assert "Throughput by batch" in (tmp_path / "s.html").read_text()
    assert "a sweep; compare results of single runs" in one_line(
        orinspect("bench", tmp_path / "s.json", "--compare", tmp_path / "s.json")
    )


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, "no difference shown"), (1.2, "slower"), (0.8, "faster")], ids=str
)
def test_two_results_are_compared(orinspect: Run, saved: Path, factor: float, verdict: str) -> None:
    here, there = scaled(saved, factor), scaled(saved, 1.0)
    ran = orinspect("bench", here, "--compare", there)
    assert ran.code == 0, ran.err
    assert f"fp32: {factor:.3f}x the time of the other run (95 % interval " in ran.out
    assert f": {verdict}" in ran.out
    (row,) = json.loads(orinspect("bench", here, "--compare", there, "--json").out)["comparisons"][str(there)]
    assert row["verdict"] == verdict


@pytest.mark.parametrize(
    ("factor", "percent", "code"), [(1.2, 5, 1), (1.2, 25, 0), (1.03, 5, 0), (1.0, 0, 0), (1.2, None, 1), (0.5, 5, 0)]
)
def test_a_baseline_is_kept_or_not(
    orinspect: Run, saved: Path, factor: float, percent: float | None, code: int
) -> None:
    allowed = () if percent is None else ("--max-regression", percent)
    ran = orinspect("bench", scaled(saved, factor), "--baseline", scaled(saved, 1.0), *allowed)
    assert ran.code == code, ran.err
    if code:
        assert "by more than 5 %: fp32: 1.200x" in one_line(ran, 1)


def test_a_measurement_is_held_against_a_baseline(orinspect: Run, real_bundle: Path, saved: Path) -> None:
    assert orinspect("bench", real_bundle, *RAN, "--baseline", scaled(saved, 1000.0)).code == 0
    ran = orinspect("bench", real_bundle, *RAN, "--baseline", scaled(saved, 1e-6), "--out", saved.parent / "new.json")
    assert "slower than" in one_line(ran, 1)
    assert read_result(saved.parent / "new.json"), "the result is kept though the check failed"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("scenario", "offline", "scenario single-stream here, offline there"),
        ("head", "padim", "head patchcore here, padim there"),
        ("model_size", [64, 32], "model size 32x32 here, 64x32 there"),
        ("batch", 4, "frames a call 1 here, 4 there"),
        ("times_ms", {"int8": [[1.0] * 10] * 5}, "share no precision: fp32 here, int8 there"),
        ("times_ms", {"fp32": [[1.0] * 10]}, "too few calls for an interval: measure at least 50"),
        ("times_ms", {"fp32": [["x"]]}, "damaged: its raw times"),
        ("times_ms", {"fp32": []}, "damaged: its raw times"),
        ("format", 99, "format 99, this orinspect reads 2"),
    ],
)
def test_what_is_not_the_same_is_not_compared(
    orinspect: Run, saved: Path, key: str, value: object, message: str
) -> None:
    other = changed(saved, "other.json", lambda result: result.update({key: value}))
    assert message in one_line(orinspect("bench", saved, "--compare", other))


@pytest.mark.parametrize("content", ["", "text", "[]", "{}", "null", '{"latencies": []}'])
def test_files_that_are_no_result(orinspect: Run, saved: Path, content: str) -> None:
    other = saved.parent / "other.json"
    other.write_text(content)
    assert "not a result of orinspect bench" in one_line(orinspect("bench", saved, "--compare", other))


def test_other_bad_usage(orinspect: Run, saved: Path, real_bundle: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("--compare", tmp_path / "none.json"), "none.json: No such file"),
        (("--max-regression", 5), "pass --baseline"),
        (("--sweep", "--compare", saved), "--sweep makes many results"),
        (("--sweep", "--batches", "x"), "--batches x: whole numbers"),
        (("--power-modes", "15W"), "--power-modes is for --sweep"),
        (("--sweep", "--power-modes", "15W"), "--power-modes: this computer has none that orinspect knows"),
        (("--images", tmp_path / "none"), "none: no such file or folder"),
        (("--scenario", "server"), "needs --rate"),
    ):
        assert message in one_line(orinspect("bench", real_bundle, *RAN, *arguments))


def test_other_machines_and_unclean_runs_are_remarked(saved: Path) -> None:
    here = read_result(saved)
    there = read_result(changed(saved, "o.json", lambda r: r["conditions"].update(machine="Other CPU")))
    told = remarks(here | {"clean": True}, there | {"clean": False, "encoder": "large"})
    assert [line for line in told if "Other CPU there" in line]
    assert [line for line in told if line.startswith("encoder: ")]
    assert [line for line in told if line.startswith("not clean: the other run")]


def test_an_interrupt_leaves_nothing_half_written(
    orinspect: Run, real_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scenarios, "_time_runs", interrupted)
    old = tmp_path / "bench.json"
    old.write_text("old")
    assert orinspect("bench", real_bundle, *RAN, "--out", old, "--markdown", tmp_path / "b.md").code == 130
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    assert old.read_text() == "old"


def test_a_missing_extra_is_told_before_the_measurement(
    orinspect: Run, real_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.setattr(scenarios, "time_backends", None)
    line = one_line(orinspect("bench", real_bundle, "--html", tmp_path / "b.html"))
    assert "pip install 'orinspect[report]'" in line


def test_a_cold_start_that_fails_says_why(orinspect: Run, real_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold, "CHILD", "raise SystemExit('no memory')")
    line = one_line(orinspect("bench", real_bundle, "--runs", 10))
    assert "cold start of fp32 failed (no memory); pass --cold-starts 0" in line
