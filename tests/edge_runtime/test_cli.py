"""The command line: quick, documented, one line an error, and no heavy library before it is needed."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from shutil import copy, copytree
from typing import Any

import click
import numpy as np
import pytest

from orinspect_edge_runtime.errors import CheckFailed, InputError

try:
    VERSION = version("orinspect")
except PackageNotFoundError:
    pytest.skip("commands are entry points: orinspect must be installed for them", allow_module_level=True)

from orinspect_edge_runtime import cli

Run = Callable[..., Any]
COMMANDS = sorted(point.name for point in entry_points(group=cli.COMMAND_GROUP))
RUNTIME = ("bench", "check", "embed", "evaluate", "fit", "score")
PYTHON_M = [sys.executable, "-m", "orinspect_edge_runtime.cli"]


def told(ran: Any, code: int = 2) -> str:
    """The one line of an error."""
    assert ran.code == code
    assert "Traceback" not in ran.err
    lines = ran.err.splitlines()
    assert [line for line in lines if line.startswith("orinspect: ")] == lines[-1:]
    return str(lines[-1])


def test_help_is_quick_and_lists_every_command() -> None:
    """CPU time of the child, best of five: what else runs on the machine does not count."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([*PYTHON_M, "--help"], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert done.stderr == ""
    listed = [line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines() if line.strip()]
    assert sorted(listed) == COMMANDS
    journey = [name for name in cli.JOURNEY if name in COMMANDS]
    assert listed[: len(journey)] == journey
    assert min(times) < 0.3


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*(name for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_commands_of_the_runtime_import_nothing_heavy() -> None:
    names = ("cli", "commands", "score_command", "evaluate_command", "drift_command", "recipe_cli", "bench.command")
    loaded = modules_after("import " + ", ".join(f"orinspect_edge_runtime.{name}" for name in names))
    assert "click" in loaded
    assert not loaded & {"numpy", "PIL", "rich", "onnxruntime", "torch", "onnx", "typer", "matplotlib", "jinja2"}


def test_the_detector_needs_neither_torch_nor_onnx() -> None:
    loaded = modules_after(
        "import orinspect_edge_runtime.commands\nfrom orinspect_edge_runtime import Detector\n"
        "import orinspect_edge_runtime.fit, orinspect_edge_runtime.report, orinspect_edge_runtime.bench"
    )
    assert "numpy" in loaded
    assert not loaded & {"torch", "torchvision", "onnx", "timm", "typer", "scipy", "sklearn", "matplotlib", "jinja2"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_documents_itself_with_an_example(orinspect: Run, name: str) -> None:
    ran = orinspect(name, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: orinspect {name} ")
    shown = [line for line in ran.out.splitlines()[1:] if f"orinspect {name}" in line]
    assert shown, "no example"


def test_the_commands_of_the_runtime_are_installed() -> None:
    assert set(RUNTIME) <= set(COMMANDS)


def test_no_argument_shows_the_help(orinspect: Run) -> None:
    assert orinspect().code == 0
    assert orinspect().out == orinspect("--help").out
    assert "Start with:  orinspect demo" in orinspect("-h").out


def test_version(orinspect: Run) -> None:
    ran = orinspect("--version")
    assert ran.code == 0
    assert VERSION in ran.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-command"], "No such command 'no-such-command'.*orinspect --help"),
        (["--no-such-option"], "No such option"),
        (["fit"], "Missing argument 'BUNDLE'.*orinspect fit --help"),
        (["fit", "a", "b", "c"], "unexpected extra argument"),
        (["check", "--nope", "x"], "No such option"),
        (["fit", "a", "b", "--seed", "one"], "'one' is not a valid integer"),
        (["embed", "a", "b"], "Missing option '--out'"),
        (["score", "a"], "Missing argument 'IMAGES...'"),
        (["check", "/no/such/bundle"], "no such bundle"),
        (["check", "x" * 5000], "File name too long"),
        (["check", "line\nbreak"], "line break: no such bundle"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(orinspect: Run, arguments: list[str], message: str) -> None:
    ran = orinspect(*arguments)
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert re.search(message, told(ran))


def raising(error: BaseException) -> Callable[..., click.Command]:
    @click.command()
    def command() -> None:
        raise error

    return lambda *_: command


def missing_module(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a\nb"), 2, "orinspect: a b"),
        (CheckFailed("no"), 1, "orinspect: no"),
        (KeyboardInterrupt(), 130, "orinspect: interrupted; what was already written is whole"),
        (click.Abort(), 130, "orinspect: interrupted; what was already written is whole"),
        (PermissionError(13, "Permission denied", "/x"), 2, "orinspect: /x: Permission denied"),
        (OSError(28, "No space left on device"), 2, "orinspect: the system: No space left on device"),
        (missing_module("torch.nn"), 2, "orinspect: this command needs the package 'torch': run pip install"),
        (click.ClickException("odd"), 1, "orinspect: odd"),
    ],
)
def test_errors_become_one_line_and_an_exit_code(
    orinspect: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    monkeypatch.setattr(cli.Commands, "get_command", raising(error))
    assert told(orinspect("check"), code).startswith(line)


def test_a_bug_keeps_its_traceback(orinspect: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (ZeroDivisionError(), missing_module("orinspect_edge_runtime.nothing")):
        monkeypatch.setattr(cli.Commands, "get_command", raising(error))
        with pytest.raises(type(error)):
            orinspect("check")


@pytest.mark.parametrize("arguments", [["fit", "--help"], ["--version"]])
def test_a_reader_that_leaves_is_no_error(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*PYTHON_M, *arguments], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.fixture
def bundle(real_bundle: Path, tmp_path: Path) -> Path:
    return copytree(real_bundle, tmp_path / "bundle")


@pytest.fixture
def fitted(bundle: Path, orinspect: Run, pictures: Path) -> Path:
    assert orinspect("fit", bundle, pictures / "train/good", "--false-alarm", "0.1").code == 0
    return bundle


def test_check_passes_a_good_bundle(orinspect: Run, bundle: Path) -> None:
    ran = orinspect("check", bundle, "--json")
    assert ran.code == 0
    (replay,) = json.loads(ran.out)["replays"]
    assert replay["passed"]
    assert replay["least_cosine"] == pytest.approx(1, abs=1e-6)
    assert "ok     fp32 patchcore: cosine 1.00000" in orinspect("check", bundle).out


def test_fit_then_score_then_evaluate(orinspect: Run, bundle: Path, pictures: Path, tmp_path: Path) -> None:
    fit = orinspect("fit", bundle, pictures / "train/good", "--false-alarm", "0.1", "--recipe", "part", "--json")
    fields = json.loads(fit.out)
    assert (fields["name"], fields["good_images"], sum(fields["group_sizes"])) == ("part", 24, 24)
    score = orinspect("score", bundle, pictures / "test", "--json", "--overlay", tmp_path / "maps")
    rows = json.loads(score.out)
    blots = {row["image"]: row["is_anomalous"] for row in rows if "blot" in row["image"]}
    assert len(rows) == 11
    assert list(blots.values()) == [True] * 5
    assert len(list((tmp_path / "maps").glob("*.png"))) == 11
    result = json.loads(orinspect("evaluate", bundle, pictures, "--json").out)
    assert (result["auroc"], result["detections"], result["recipe"]) == (1.0, 1.0, "part")
    assert [image["score"] for image in result["images"]] == pytest.approx(
        [row["score"] for kind in ("good", "blot") for row in rows if f"/{kind}/" in row["image"]]
    )


def test_the_same_in_words(orinspect: Run, bundle: Path, pictures: Path) -> None:
    fit = orinspect("fit", bundle, pictures / "train/good", "--groups", "1")
    assert fit.out.startswith("recipe default: patchcore fp32, 24 good images (24)\nmemory bank of ")
    score = orinspect("score", bundle, pictures / "test/blot/00.png")
    assert score.out.split()[0] == "ANOMALOUS"
    assert "image AUROC 1.0000" in orinspect("evaluate", bundle, pictures).out


@pytest.mark.parametrize("scorer", ["knn", "mahalanobis"])
def test_scorers_of_the_whole_image(orinspect: Run, bundle: Path, pictures: Path, scorer: str) -> None:
    ran = orinspect("fit", bundle, pictures / "train/good", "--scorer", scorer)
    assert ran.code == 0, ran.err
    assert json.loads(orinspect("evaluate", bundle, pictures, "--json").out)["auroc"] == 1.0
    ran = orinspect("score", bundle, pictures / "test/blot/00.png", "--overlay", bundle / "maps")
    assert "has no heat map" in told(ran)


def test_a_scorer_whose_head_the_bundle_lacks(orinspect: Run, bundle: Path, pictures: Path) -> None:
    ran = orinspect("fit", bundle, pictures / "train/good", "--scorer", "padim")
    assert "no fp32 graph with the head 'padim'" in told(ran)


def test_embed(orinspect: Run, bundle: Path, pictures: Path, tmp_path: Path) -> None:
    ran = orinspect("embed", bundle, pictures / "test", "--out", tmp_path / "new/e.npz")
    assert ran.code == 0
    with np.load(tmp_path / "new/e.npz") as entries:
        assert entries["embedding"].shape == (11, 9)
        assert sorted(entries["image"]) == sorted(map(str, (pictures / "test").rglob("*.png")))


def test_bench_states_its_conditions(orinspect: Run, bundle: Path, tmp_path: Path) -> None:
    ran = orinspect("bench", bundle, "--runs", "10", "--threads", "1", "--json", "--out", tmp_path / "b.json")
    assert ran.code == 0
    result = json.loads(ran.out)
    assert json.loads((tmp_path / "b.json").read_text()) == result
    (latency,) = result["latencies"]
    assert latency["runs"] == 10
    assert 0 < latency["least_ms"] <= latency["p50_ms"] <= latency["p99_ms"]
    assert result["conditions"]["threads"] == 1
    assert "p50" in orinspect("bench", bundle, "--runs", "10", "--scenario", "offline").out


def test_score_goes_on_after_a_bad_image_and_says_so(orinspect: Run, fitted: Path, pictures: Path) -> None:
    (fitted / "bad.png").write_text("text")
    ran = orinspect("score", fitted, fitted / "bad.png", pictures / "test/blot/00.png")
    assert ran.code == 2
    assert "ANOMALOUS" in ran.out
    lines = [line for line in ran.err.splitlines() if line.startswith("orinspect: ")]
    assert lines[0] == f"orinspect: {fitted / 'bad.png'}: not an image (or of a kind that Pillow cannot read)"
    assert lines[1] == "orinspect: 1 of 2 images could not be scored; each is named above"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_file_names_of_any_bytes(fitted: Path, pictures: Path, tmp_path: Path, encoding: str) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\xc3\xa4 <b>.png"
    copy(pictures / "test/blot/00.png", name)
    environment = os.environ | {"PYTHONIOENCODING": f"{encoding}:strict"}
    command = [*PYTHON_M, "score", str(fitted), name]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert done.stdout.startswith(b"ANOMALOUS")
