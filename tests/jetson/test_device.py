"""A board as engines see it, and the whole way of an engine on a replayed one: build, passport, golden, publish, detect.

The engine is a recording (tests/fake_tensorrt), CUDA a driver for tests (tests/fake_cuda): nothing here ran on a board.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_cuda
import pytest

from orinspect_edge_runtime import passport as passports
from orinspect_edge_runtime.bank_rule import BankRule
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.device import RECORDING
from orinspect_edge_runtime.recipe import Recipe
from orinspect_jetson.device import read_device
from orinspect_jetson.host import Host

ROOT = Path(__file__).parents[2]
needs_cuda = [
    pytest.mark.skipif(fake_cuda.compiler() is None, reason="there is no C compiler (cc) for the fake driver"),
    pytest.mark.skipif(
        importlib.util.find_spec("pycuda") is None, reason="pycuda is not installed: see CONTRIBUTING.md"
    ),
]


def test_every_replayed_orin_is_read_as_its_passport_wants_it(
    compose: Callable[..., Path], board_table: dict[str, Any]
) -> None:
    seen = set()
    for board in board_table["boards"]:
        for l4t in board["releases"]:
            here = read_device(Host(compose(board["id"], l4t)))
            if not here.sm.startswith("8."):
                continue
            seen.add((here.module, here.l4t))
            assert (here.module, here.l4t, here.sm) == (board["part"], l4t, "8.7")
            assert here.sm_count == board["sm_active"]
            assert here.tensorrt.startswith(board_table["releases"][l4t]["tensorrt"])
            assert here.cuda.startswith(board_table["releases"][l4t]["cuda"])
            assert here.free_mib > 0
    assert len(seen) > 20


def test_this_computer_is_no_jetson() -> None:
    here = read_device()
    assert (here.module, here.l4t) == ("", "") or Path("/etc/nv_tegra_release").exists()


@pytest.fixture
def on_board(compose: Callable[..., Path], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run tests/fake_tensorrt/on_board.py on a replayed board."""
    driver = fake_cuda.compile_driver(tmp_path)

    def run(
        *arguments: Any, board: str = "orin-nano-8gb-super", l4t: str = "36.4.3", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join(filter(None, [str(ROOT / "tests"), *sys.path]))
        told = os.environ | {"PYTHONPATH": paths, "FAKE_CUDA": str(driver), "BOARD": str(compose(board, l4t))}
        command = [sys.executable, "-m", "fake_tensorrt.on_board", *map(str, arguments)]
        return subprocess.run(command, env=told | environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def bundle(real_bundle: Path, tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> Path:
    folder = tmp_path / "bundle"
    shutil.copytree(real_bundle, folder)
    opened = Bundle.open(folder)
    opened.add_recipe(tiny_recipe(graph_sha256=opened.manifest.files["graphs/patchcore-fp32.onnx"].sha256))
    return folder


class TestEngine:
    pytestmark = needs_cuda

    def test_build_passport_golden_publish_detect(
        self, on_board: Callable[..., Any], bundle: Path, pictures: Path
    ) -> None:
        image = next((pictures / "test/blot").iterdir())
        built = on_board("build", bundle, "--precision", "fp32")
        assert built.returncode == 0, built.stderr
        assert "for Jetson Orin Nano 8GB (developer kit module) Super, L4T 36.4.3, TensorRT 10.3.0" in built.stdout
        assert "golden: cosine 1.00000, rank 1.0000" in built.stdout
        folder = bundle / "engines/patchcore-fp32"
        assert sorted(p.name for p in folder.iterdir()) == ["engine.plan", "layers.json", "passport.json"]
        passport = passports.from_bytes((folder / "passport.json").read_bytes(), "passport.json")
        assert (passport.kind, passport.module, passport.l4t) == (RECORDING, "p3767-0005", "36.4.3")
        assert json.loads((folder / "layers.json").read_text())["precisions"] == {"fp32": 1}
        assert [p.name for p in (bundle / "engines/timing").iterdir()] == [
            "p3767-0005_36.4.3_recording-for-tests_10.3.0.cache"
        ]
        by_engine = json.loads(on_board("detect", bundle, "tensorrt", image).stdout)
        by_cpu = json.loads(on_board("detect", bundle, "onnxruntime", image).stdout)
        assert by_engine["score"] == pytest.approx(by_cpu["score"], abs=1e-5)
        assert "TensorRT 10.3.0 (pycuda)" in by_engine["description"]
        assert "TensorRT 10.3.0" in json.loads(on_board("detect", bundle, "auto", image).stdout)["description"]
        opened = Bundle.open(bundle)
        ruled = opened.recipe(None)
        ruled.arrays.update(BankRule(3).arrays())
        opened.add_recipe(ruled)
        by_engine = json.loads(on_board("detect", bundle, "tensorrt", image).stdout)
        by_rule = json.loads(on_board("detect", bundle, "onnxruntime", image).stdout)
        assert by_engine["score"] == pytest.approx(by_rule["score"], abs=1e-5)
        assert "TensorRT 10.3.0 (pycuda)" in by_engine["description"]
        assert "16 rows searched one by one" in by_engine["description"]
        again = on_board("build", bundle, "--precision", "fp32")
        assert "is valid for this device: nothing to build" in again.stdout
        Bundle.open(bundle)

    def test_on_another_board_it_is_refused_by_name_and_auto_goes_on_without(
        self, on_board: Callable[..., Any], bundle: Path, pictures: Path
    ) -> None:
        image = next((pictures / "test/good").iterdir())
        assert on_board("build", bundle, "--precision", "fp32").returncode == 0
        other = {"board": "orin-nx-16gb", "l4t": "36.4.3"}
        refused = on_board("detect", bundle, "tensorrt", image, **other)
        assert refused.returncode == 1
        told = "was built on a Jetson Orin Nano 8GB (developer kit module) Super, this is a Jetson Orin NX 16GB: run  "
        assert told + f"orinspect build {bundle} --precision fp32  on this device" in refused.stderr
        auto = json.loads(on_board("detect", bundle, "auto", image, **other).stdout)["description"]
        assert auto.startswith("fp32 on onnxruntime")
        assert "was built on a Jetson Orin Nano" in auto
        newer = {"l4t": "39.2.0", "RECORDED_VERSION": "tensorrt-10.16.1"}
        refused = on_board("detect", bundle, "tensorrt", image, **newer)
        assert "L4T 36.4.3, this device has 39.2.0" in refused.stderr
        assert "TensorRT 10.3.0, this device has 10.16.1" in refused.stderr
        rebuilt = on_board("build", bundle, "--precision", "fp32", **newer)
        assert rebuilt.returncode == 0
        assert "TensorRT 10.16.1" in rebuilt.stdout
        assert json.loads(on_board("detect", bundle, "tensorrt", image, **newer).stdout)["score"] > 0

    def test_check_judges_the_engine_before_it_is_opened(self, on_board: Callable[..., Any], bundle: Path) -> None:
        assert on_board("build", bundle, "--precision", "fp32").returncode == 0
        right = on_board("check", bundle)
        assert (right.returncode, "ok     engine fp32 patchcore: fit to run" in right.stdout) == (0, True), right.stderr
        moved = on_board("check", bundle, board="orin-nx-16gb")
        assert moved.returncode == 1
        assert f"run  orinspect build {bundle} --precision fp32  on this device" in moved.stdout
        assert "the engine fp32 patchcore must not run here" in moved.stderr
        wrong = on_board("check", bundle, RECORDED_ERROR="3.5")
        assert (wrong.returncode, "does not reproduce golden (embedding cosine 0." in wrong.stdout) == (1, True)
        plan = bundle / "engines/patchcore-fp32/engine.plan"
        plan.write_bytes(plan.read_bytes()[:-1])
        cut = on_board("check", bundle)
        assert (cut.returncode, "FAILED engine fp32 patchcore: " in cut.stdout) == (1, True)

    def test_an_engine_that_differs_from_golden_is_not_published_and_the_old_one_stays(
        self, on_board: Callable[..., Any], bundle: Path
    ) -> None:
        assert on_board("build", bundle, "--precision", "fp32").returncode == 0
        folder = bundle / "engines/patchcore-fp32"
        before = {p.name: p.read_bytes() for p in folder.iterdir()}
        bad = on_board("build", bundle, "--precision", "fp32", "--force", RECORDED_ERROR="3.5")
        assert bad.returncode == 1
        assert "orinspect: the engine does not reproduce golden (cosine 0." in bad.stderr
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
        assert sorted(p.name for p in (bundle / "engines").iterdir()) == ["patchcore-fp32", "timing"]

    def test_a_build_that_fails_leaves_no_trace(self, on_board: Callable[..., Any], bundle: Path) -> None:
        bad = on_board("build", bundle, "--precision", "fp32", RECORDED_FATE="killed")
        assert bad.returncode == 1
        last = bad.stderr.strip().splitlines()[-1]
        assert last.startswith("orinspect: no engine could be built in 3 attempts (with workspace ")
        assert "most likely by the kernel because memory ran out" in last
        assert list((bundle / "engines").iterdir()) == []

    def test_a_recording_never_runs_where_tensorrt_is_real(self, on_board: Callable[..., Any], bundle: Path) -> None:
        from orinspect_edge_runtime import engine as engines
        from orinspect_edge_runtime.device import Device
        from orinspect_edge_runtime.errors import CheckFailed

        assert on_board("build", bundle, "--precision", "fp32").returncode == 0
        opened = Bundle.open(bundle)
        spec = opened.manifest.graphs[0]
        digest = opened.manifest.files[spec.file].sha256
        real = Device("p3767-0005", "Jetson Orin Nano 8GB", "36.4.3", "10.3.0", "12.6", "8.7", 8, "MAXN_SUPER", 4000)
        with pytest.raises(CheckFailed, match="a recording made by orinspect's own tests, not a TensorRT engine"):
            engines.checked_engine(bundle, spec, digest, real)
