"""One builder for every TensorRT: held against the names and signatures of four versions, and against the real rtx one."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_tensorrt
import pytest
from fake_tensorrt import recording

from orinspect_edge_runtime.bank_rule import BankRule
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.device import Device
from orinspect_edge_runtime.errors import CheckFailed, InputError
from orinspect_edge_runtime.recipe import Recipe
from orinspect_export import build_process, engine_build, layer_report, memory_limits, profiles, timing_cache
from orinspect_export.builder import BuildFailed, BuildOptions, build_engine
from orinspect_export.compiler import compiler_installed
from orinspect_export.trt_network import GraphRefused

RANGES = profiles.ranges_for()
# By the head patchcore.
USED = {name: RANGES[name] for name in ("batch", "bank_rows", "groups")}
EFFORT = memory_limits.Effort(256, 512, 2)


@pytest.fixture
def spec(real_bundle: Path) -> Any:
    return Bundle.open(real_bundle).manifest.graphs[0]


@pytest.fixture
def onnx(real_bundle: Path, spec: Any) -> bytes:
    return Bundle.open(real_bundle).read(spec.file)


@pytest.fixture
def options(spec: Any) -> BuildOptions:
    return BuildOptions(spec.inputs, RANGES, EFFORT)


@pytest.fixture(params=fake_tensorrt.VERSIONS)
def trt(request: pytest.FixtureRequest) -> types.ModuleType:
    return fake_tensorrt.load(request.param)


def silent(phase: str, done: int, steps: int) -> None:
    pass


def header_of(plan: bytes) -> dict[str, Any]:
    return json.loads(bytes(plan)[len(recording.HEADER) :].partition(b"\n")[0])


def test_the_stubs_have_only_the_names_of_their_version() -> None:
    old, new = fake_tensorrt.load("tensorrt-10.3.0"), fake_tensorrt.load("tensorrt-11.4.0")
    assert int(old.NetworkDefinitionCreationFlag.STRONGLY_TYPED) == 1
    assert int(new.NetworkDefinitionCreationFlag.STRONGLY_TYPED) == 0
    assert hasattr(old.BuilderFlag, "FP16")
    assert not hasattr(new.BuilderFlag, "FP16")
    with pytest.raises(AttributeError, match=r"TensorRT 10\.3\.0: IBuilderConfig has no 'tiling_optimization_level'"):
        old.IBuilderConfig().tiling_optimization_level = 1
    with pytest.raises(AttributeError, match=r"11\.4\.0\.106: Builder has no 'platform_has_fast_fp16'"):
        _ = new.Builder(None).platform_has_fast_fp16
    with pytest.raises(TypeError, match="set_shape"):
        old.IOptimizationProfile().set_shape("bank", (1,), (2,))
    with pytest.raises(TypeError, match="set_memory_pool_limit"):
        new.IBuilderConfig().set_memory_pool_limit(new.MemoryPoolType.WORKSPACE, pool_bytes=1)


def test_it_builds_on_every_version_with_the_same_code(
    trt: types.ModuleType, onnx: bytes, options: BuildOptions, tmp_path: Path
) -> None:
    cache, told = tmp_path / "timing/a.cache", []
    options = dataclasses.replace(options, timing_cache=cache)
    built = build_engine(trt, onnx, options, lambda *step: told.append(step))
    assert built.tensorrt == trt.__version__
    assert built.layers > 30
    assert built.ranges == USED
    header = header_of(built.plan)
    assert header["pools"] == {"WORKSPACE": 256 << 20, "TACTIC_DRAM": 512 << 20}
    assert header["flags"] == []
    assert header["profile"]["frames"] == [[1, 32, 32, 3], [1, 32, 32, 3], [8, 32, 32, 3]]
    assert header["profile"]["bank"] == [[5, 1], [6, 2000], [12, 50000]]
    assert "patch_mean" not in header["profile"]
    assert told == [("Building Engine", done, 2) for done in (0, 1, 2, 2)]
    assert not built.reused_timings
    assert build_engine(trt, onnx, options, silent).reused_timings
    assert {"IBuilderConfig.builder_optimization_level=", "IBuilderConfig.progress_monitor="} <= set(trt.calls)


def test_a_foreign_or_damaged_timing_cache_is_measured_anew(
    trt: types.ModuleType, onnx: bytes, options: BuildOptions, tmp_path: Path
) -> None:
    cache = tmp_path / "a.cache"
    cache.write_bytes(b"of another version")
    built = build_engine(trt, onnx, dataclasses.replace(options, timing_cache=cache), silent)
    assert not built.reused_timings
    assert cache.read_bytes() == recording.KEPT_TIMINGS + trt.__version__.encode()


def test_only_the_rtx_compiler_is_given_a_target(trt: types.ModuleType, onnx: bytes, options: BuildOptions) -> None:
    built = build_engine(trt, onnx, dataclasses.replace(options, compute_capability="SM86"), silent)
    assert header_of(built.plan)["targets"] == ({"0": "SM86"} if trt.__name__ == "tensorrt_rtx" else {})


def test_a_graph_that_the_parser_refuses_is_told_in_its_words(trt: types.ModuleType, options: BuildOptions) -> None:
    with pytest.raises(GraphRefused, match=r"^TensorRT's parser refuses the graph: not an ONNX file"):
        build_engine(trt, b"no onnx", options, silent)


def test_no_engine_is_an_error_with_the_last_logged_reason(
    trt: types.ModuleType, onnx: bytes, options: BuildOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_engine(builder: Any, network: Any, config: Any) -> bool:
        builder._logger.log(trt.ILogger.WARNING, "a warning")
        builder._logger.log(trt.ILogger.ERROR, "Could not find any implementation for node conv1")
        return True

    monkeypatch.setattr(recording, "on_build", no_engine)
    with pytest.raises(BuildFailed, match=r"made no engine: Could not find any implementation for node conv1$"):
        build_engine(trt, onnx, options, silent)


def test_tensorrt_8_is_refused_before_anything_else(options: BuildOptions) -> None:
    with pytest.raises(InputError, match=r"TensorRT 8\.6\.2 is too old"):
        build_engine(types.SimpleNamespace(__name__="tensorrt", __version__="8.6.2"), b"", options, silent)


def test_the_dla_is_refused_where_it_cannot_be_had(
    trt: types.ModuleType, onnx: bytes, options: BuildOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "dla_cores", 2)
    with pytest.raises(CheckFailed, match=r"leave --dla out$"):
        build_engine(trt, onnx, dataclasses.replace(options, dla_core=0), silent)


def test_the_dla_is_planned_before_the_build(
    onnx: bytes, options: BuildOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = fake_tensorrt.load("tensorrt-11.4.0")
    trt.__version__ = "11.4.1"
    wanted = dataclasses.replace(options, dla_core=1)
    with pytest.raises(CheckFailed, match="has no DLA, or its compiler"):
        build_engine(trt, onnx, wanted, silent)
    monkeypatch.setattr(recording, "dla_cores", 2)
    monkeypatch.setattr(recording, "dla_kinds", ("POOLING",))
    with pytest.raises(
        CheckFailed, match=r"slower than one for the GPU: 1 of \d+ layers on the DLA, 2 changes.*--dla-force"
    ):
        monkeypatch.setattr("orinspect_export.dla.MOST_CHANGES", 1)
        build_engine(trt, onnx, wanted, silent)
    built = build_engine(trt, onnx, dataclasses.replace(wanted, dla_force=True), silent)
    assert built.ranges["batch"] == (1, 1, 1)
    assert built.dla["changes"] == 2
    assert sum(p["device"] == "DLA" for p in built.dla["placements"]) == 1
    assert header_of(built.plan)["flags"] == ["GPU_FALLBACK"]


def test_dimensions_that_depend_on_another_move_with_it() -> None:
    assert profiles.dimension_range("153+groups", {"groups": (1, 2, 8)}) == (154, 155, 161)
    assert profiles.dimension_range(7, {}) == (7, 7, 7)
    with pytest.raises(InputError, match=r"'colours' is not known: run  pip install --upgrade"):
        profiles.dimension_range("colours", RANGES)


def test_a_recipe_moves_the_typical_size_and_widens_the_range() -> None:
    assert profiles.ranges_for(700, 3)["bank_rows"] == (1, 700, 50000)
    assert profiles.ranges_for(90000, 12)["bank_rows"] == (1, 90000, 90000)
    assert profiles.ranges_for(90000, 12)["groups"] == (1, 12, 12)
    assert profiles.ranges_for(batch=1)["batch"] == (1, 1, 1)
    assert profiles.ranges_for(factor_columns=16)["factor_columns"] == (1, 16, 256)


def test_an_engine_whose_recipe_is_searched_beside_it_is_tuned_for_one_row(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe()
    assert engine_build._rows_in_engine(recipe) == recipe.arrays["bank"].shape[1] > 1
    recipe.arrays.update(BankRule(3).arrays())
    assert engine_build._rows_in_engine(recipe) == 1
    assert engine_build._rows_in_engine(tiny_recipe(scorer="knn", arrays={})) is None


@pytest.mark.parametrize("free_mib", [0, 100, 900, 2500, 6000, 28000, 60000])
def test_the_ladder_asks_for_less_each_time_and_never_for_all(free_mib: int) -> None:
    rungs = memory_limits.ladder(free_mib)
    free = free_mib or 2048
    assert rungs[0].workspace_mib <= memory_limits.LARGEST_WORKSPACE_MIB
    assert all(r.tactic_mib <= max(free // 2, 64) for r in rungs)
    assert all(a.workspace_mib >= b.workspace_mib and a.level > b.level for a, b in zip(rungs, rungs[1:], strict=False))
    assert memory_limits.ladder(6000, level=0)[-1].level == 0


def test_a_timing_cache_is_one_file_a_module_release_and_version(tmp_path: Path) -> None:
    device = Device("p3767-0003", "Jetson Orin Nano 8GB", "36.4.3", "10.3.0")
    assert timing_cache.cache_file(tmp_path, device).name == "p3767-0003_36.4.3_tensorrt_10.3.0.cache"
    others = [dataclasses.replace(device, **c) for c in ({"module": "../x"}, {"l4t": "36.4.4"}, {"tensorrt": "10.4"})]
    assert len({timing_cache.cache_file(tmp_path, d) for d in [device, *others]}) == 4
    assert all(timing_cache.cache_file(tmp_path, d).parent == tmp_path / "timing" for d in others)


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        ({"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}, "fp16"),
        ({"Format/Datatype": "Row major Int8 format"}, "int8"),
        ({"Format": "Row major linear", "Datatype": "Float"}, "fp32"),
        ({"Format": "NHWC8", "Datatype": "Half"}, "fp16"),
        ({}, ""),
    ],
)
def test_layers_are_read_from_every_form_of_the_inspector(words: dict[str, str], precision: str) -> None:
    layer = {"Name": "conv1 + relu1", "LayerType": "CaskConvolution", "Outputs": [words]}
    (row,) = layer_report.read_layers(json.dumps({"Layers": [layer]}))
    assert (row.layer, row.kind, row.precision) == ("conv1 + relu1", "CaskConvolution", precision)
    assert layer_report.precisions([row, row]) == {precision: 2}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"Layers": []}', "null"])
def test_damaged_inspector_text_gives_no_layers(text: str) -> None:
    assert layer_report.read_layers(text) == []
    assert layer_report.read_layers('{"Layers": ["conv1"]}')[0].layer == "conv1"


def test_the_builder_imports_neither_torch_nor_onnx() -> None:
    code = "import sys, orinspect_export.build_worker, orinspect_export.engine_build, orinspect_export.build_cli as b;"
    code += "bad = {'torch', 'onnx', 'onnxruntime', 'timm', 'tensorrt', 'orinspect_train'} & set(sys.modules);"
    code += "assert not bad, bad"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


needs_compiler = pytest.mark.skipif(
    not compiler_installed(), reason="NVIDIA's compiler is missing: pip install tensorrt-rtx-cu13"
)


@pytest.fixture
def build_for_real(tmp_path: Path, options: BuildOptions) -> Callable[..., dict[str, Any]]:
    """Build with NVIDIA's own compiler, in the process that builds on a board."""

    def run(onnx: bytes, **changes: Any) -> dict[str, Any]:
        chosen = dataclasses.replace(options, compute_capability="SM86", **changes)
        return build_process.build_in_process(tmp_path, "tensorrt_rtx", onnx, chosen, [EFFORT], silent)

    return run


@needs_compiler
def test_the_real_compiler_builds(build_for_real: Callable[..., dict[str, Any]], onnx: bytes, tmp_path: Path) -> None:
    cache = tmp_path / "timing/rtx.cache"
    result = build_for_real(onnx, timing_cache=cache)
    assert result["tensorrt"].startswith("1.")
    assert result["layers"] > 30
    assert result["ranges"] == {name: list(values) for name, values in USED.items()}
    assert (tmp_path / "engine.plan").stat().st_size > 10_000
    assert result["peak_mib"] > 50


@needs_compiler
def test_the_real_parser_refuses_in_one_sentence(build_for_real: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(CheckFailed, match=r"^TensorRT's parser refuses the graph: "):
        build_for_real(b"no onnx at all")


@needs_compiler
def test_out_of_memory_the_real_compiler_ends_in_an_engine_or_one_sentence(
    build_for_real: Callable[..., dict[str, Any]], onnx: bytes, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**29, hard))
    try:
        with pytest.raises((CheckFailed, InputError)) as caught:
            build_for_real(onnx)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "engine.plan").exists()
