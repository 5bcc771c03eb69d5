"""However a builder ends (killed, crashed, out of memory, interrupted), one sentence says so and nothing stays behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_export import build_process, memory_limits, profiles
from orinspect_export.build_process import build_in_process
from orinspect_export.builder import BuildOptions

RECORDER = "fake_tensorrt.recorder"
LADDER = memory_limits.ladder(2048)


@pytest.fixture
def build(real_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Build in a process whose TensorRT has a given fate; returns the result and what was announced."""
    bundle = Bundle.open(real_bundle)
    spec = bundle.manifest.graphs[0]
    options = BuildOptions(spec.inputs, profiles.ranges_for(), LADDER[0])

    def run(fate: str = "", library: str = RECORDER) -> tuple[dict[str, Any], list[str]]:
        monkeypatch.setenv("RECORDED_FATE", fate)
        said: list[str] = []
        progress = lambda *step: said.append(step)  # noqa: E731
        announced: list[str] = []
        result = build_in_process(
            tmp_path, library, bundle.read(spec.file), options, LADDER, progress, announced.append
        )
        assert said[0] == ("Building Engine", 0, 2)
        return result, announced

    return run


def test_the_first_attempt_is_enough_when_nothing_goes_wrong(build: Any, tmp_path: Path) -> None:
    result, announced = build()
    assert (result["attempts"], result["effort"]["workspace_mib"], announced) == (1, 512, [])
    assert result["seconds"] > 0
    assert (tmp_path / "engine.plan").stat().st_size > 1000


@pytest.mark.parametrize(
    ("fate", "told"),
    [
        ("killed", "the builder was killed, most likely by the kernel because memory ran out"),
        ("abort", "the builder crashed (SIGABRT"),
        ("exit", "the builder ended with exit code 3: terminate called after throwing"),
        ("memory", "memory ran out"),
        ("none", "TensorRT 10.3.0 made no engine: it gave no reason"),
    ],
)
def test_a_fatal_end_is_tried_again_with_less(build: Any, fate: str, told: str) -> None:
    result, announced = build(f"{fate}:128")
    assert (result["attempts"], result["effort"]) == (2, {"workspace_mib": 128, "tactic_mib": 512, "level": 2})
    assert len(announced) == 1
    assert announced[0].startswith(f"with workspace 512 MiB, level 3 {told}")
    assert announced[0].endswith("; trying again with workspace 128 MiB, level 2")


def test_when_every_attempt_fails_one_sentence_tells_all(build: Any, tmp_path: Path) -> None:
    told = "the builder was killed, most likely by the kernel because memory ran out"
    with pytest.raises(CheckFailed) as caught:
        build("killed")
    text = str(caught.value)
    assert text.startswith("no engine could be built in 3 attempts (with workspace 512 MiB, level 3")
    assert text.count(told) == 3
    assert text.endswith("add a swap file, or build with --level 0")
    assert "\n" not in text
    assert not (tmp_path / "engine.plan").exists()


def test_under_a_real_memory_limit_a_smaller_attempt_succeeds(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    probe = "import fake_tensorrt.recorder, onnxruntime; print(open('/proc/self/statm').read().split()[0])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pages = int(subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, check=True).stdout)
    needed = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (needed + 400 * 2**20, hard))
    try:
        result, announced = build("eat")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert result["attempts"] in (2, 3)
    assert "memory ran out" in announced[0]


@pytest.mark.parametrize(
    ("library", "told"),
    [
        ("no_such_tensorrt", "TensorRT's Python module is not installed: on a Jetson run  sudo apt install"),
        ("fake_tensorrt.too_old", "TensorRT 8.5.2 is too old: orinspect needs 10.3 or newer"),
    ],
)
def test_a_missing_or_old_tensorrt_is_told_at_once(real_bundle: Path, tmp_path: Path, library: str, told: str) -> None:
    bundle = Bundle.open(real_bundle)
    spec = bundle.manifest.graphs[0]
    options = BuildOptions(spec.inputs, profiles.ranges_for(), LADDER[0])
    with pytest.raises(InputError, match=f"^{told}"):
        build_in_process(tmp_path, library, b"", options, LADDER, print)


def test_ctrl_c_ends_the_builder_and_leaves_nothing(real_bundle: Path, tmp_path: Path) -> None:
    code = f"""
import pathlib, sys
from orinspect_edge_runtime import engine as engines
from orinspect_edge_runtime.bundle import Bundle
from orinspect_export import build_process, memory_limits, profiles
from orinspect_export.builder import BuildOptions
bundle = Bundle.open({str(real_bundle)!r})
spec = bundle.manifest.graphs[0]
options = BuildOptions(spec.inputs, profiles.ranges_for(), memory_limits.first_effort(2048))
with engines.new_engine(pathlib.Path({str(tmp_path)!r}), spec) as folder:
    build_process._follow = (lambda follow: lambda w, p: (print(w.pid, flush=True), follow(w, p)))(build_process._follow)
    build_process.build_in_process(folder, {RECORDER!r}, bundle.read(spec.file), options, [options.effort], print)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RECORDED_FATE": "sleep"}
    # A test run started in the background has SIGINT ignored, and so would its children.
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  one thread here
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert list((tmp_path / "engines").iterdir()), "the half-built engine lies under a temporary name"
    parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=120)
    assert b"KeyboardInterrupt" in errors
    assert not _is_alive(worker)
    assert list((tmp_path / "engines").iterdir()) == []


def test_the_builder_ends_with_its_parent(real_bundle: Path, tmp_path: Path) -> None:
    build_process.write_request(
        tmp_path, RECORDER, Bundle.open(real_bundle).read("graphs/patchcore-fp32.onnx"), OPTIONS
    )
    code = f"""
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-m", {build_process.WORKER!r}, {str(tmp_path)!r}], start_new_session=True)
print(worker.pid, flush=True)
time.sleep(600)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RECORDED_FATE": "sleep"}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    deadline = time.monotonic() + 120
    while "build_worker" not in _command(worker) or not _has_started(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.kill()
    parent.communicate()
    while _is_alive(worker):
        assert time.monotonic() < deadline, "the builder outlived its parent"
        time.sleep(0.05)


OPTIONS = BuildOptions((), {}, LADDER[0])


def _has_started(pid: int) -> bool:
    """The worker has made itself expendable: its out-of-memory score is raised."""
    return Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii").strip() == "800"


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
