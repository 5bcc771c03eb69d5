"""What several test files share: a bundle small enough to build in a moment, whose graph is nevertheless a real one."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from orinspect_edge_runtime import manifest as manifests
from orinspect_edge_runtime.bundle import GOLDEN, MANIFEST, Bundle
from orinspect_edge_runtime.heads import axis_filter, head_inputs
from orinspect_edge_runtime.manifest import EncoderSpec, FileEntry, GraphSpec, Manifest, TensorSpec
from orinspect_edge_runtime.preprocess import PreprocessSpec
from orinspect_edge_runtime.recipe import Recipe

# Shared machines are slow at times: a deadline would only measure that.
settings.register_profile("orinspect", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("orinspect")

SIDE, CELL = 32, 8
ENCODER = EncoderSpec("pooling", "scratch", "none", (0.0,) * 3, (1.0,) * 3, (0,), (SIDE // CELL,) * 2, 3, 9)
GRAPH = "graphs/patchcore-fp32.onnx"
OUTPUTS = (
    TensorSpec("score", "float32", ("batch",)),
    TensorSpec("anomaly_map", "float32", ("batch", SIDE, SIDE)),
    TensorSpec("embedding", "float32", ("batch", 9)),
    TensorSpec("patches", "float32", ("batch", 16, 3)),
)
SPEC = GraphSpec(
    "fp32",
    "patchcore",
    GRAPH,
    (TensorSpec("frames", "uint8", ("batch", SIDE, SIDE, 3)), *head_inputs("patchcore", ENCODER)),
    OUTPUTS,
)


@pytest.fixture
def tiny_recipe() -> Callable[..., Recipe]:
    """A recipe for the tiny bundle; keyword arguments replace its fields."""
    return make_recipe


def make_recipe(name: str = "default", **fields: Any) -> Recipe:
    values: dict[str, Any] = {
        "scorer": "patchcore",
        "precision": "fp32",
        "graph_sha256": "0" * 64,
        "backend": "test",
        "good_images": 3,
        "group_sizes": (3,),
        "threshold": 1.5,
        "false_alarm": 0.25,
        "false_alarm_note": "three images only",
        "seed": 0,
        "created_with": "test",
        "arrays": golden_inputs(np.zeros((1, 16, 3), np.float32)),
        "calibration_scores": np.array([-1, 0, 1], np.float32),
    }
    return Recipe(name, **values | fields)


@pytest.fixture
def fake_bundle(tmp_path: Path) -> Bundle:
    """A bundle whose files are plain bytes: for everything that never opens the graph."""
    return write_bundle(tmp_path / "fake", {GRAPH: b"no graph" * 8, GOLDEN: b"no arrays"})


@pytest.fixture
def make_bundle() -> Callable[..., Bundle]:
    """write_bundle: a bundle of the files {name: bytes} in a folder; keyword arguments replace manifest fields."""
    return write_bundle


@pytest.fixture(scope="session")
def real_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that runs: encoder and head are one ONNX graph, golden was made with it. Copy it before changing it."""
    pytest.importorskip("onnxruntime", reason="the extra `cpu` is not installed")
    return write_real_bundle(tmp_path_factory.mktemp("real") / "bundle")


def write_real_bundle(folder: Path) -> Path:
    import onnxruntime as runtime

    graph = patchcore_graph()
    frames = np.random.default_rng(0).integers(0, 256, (6, SIDE, SIDE, 3), dtype=np.uint8)
    session = runtime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    neutral = golden_inputs(np.zeros((1, 16, 3), np.float32))
    patches = session.run(["patches"], {"frames": frames[:2], **neutral})[0]
    inputs = golden_inputs(patches)
    names = [spec.name for spec in OUTPUTS]
    out = dict(zip(names, session.run(names, {"frames": frames, **inputs}), strict=True))
    golden = {"frames": frames, "embedding": out["embedding"], "patches": out["patches"]}
    golden |= {f"{name}_patchcore": out[name] for name in ("score", "anomaly_map")}
    file = io.BytesIO()
    np.savez(file, **golden, **{f"patchcore.{name}": array for name, array in inputs.items()})
    return write_bundle(folder, {GRAPH: graph, GOLDEN: file.getvalue()}).path


def write_bundle(folder: Path, contents: dict[str, bytes], **fields: Any) -> Bundle:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    files = {name: FileEntry(hashlib.sha256(content).hexdigest(), len(content)) for name, content in contents.items()}
    manifest = Manifest("test", ENCODER, PreprocessSpec(SIDE, SIDE), (SPEC,), files)
    manifest = dataclasses.replace(manifest, **fields)
    (folder / MANIFEST).write_bytes(manifests.to_bytes(manifest))
    return Bundle(folder, manifest)


def golden_inputs(patches: np.ndarray) -> dict[str, np.ndarray]:
    """Head inputs of one group with the given patches [n, 16, 3] as memory bank."""
    bank = patches.reshape(-1, 3).T
    arrays = {
        "group_mean": np.zeros(9),
        "group_projection": np.zeros((9, 1)),
        "group_bias": np.zeros(1),
        "score_offset": np.zeros(1),
        "score_scale": np.ones(1),
        "patch_mean": np.zeros(3),
        "patch_projection": np.eye(3),
        "bank": np.concatenate([bank, -(bank**2).sum(0, keepdims=True), np.zeros((1, bank.shape[1]))]),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MVTec layout: train/good, test/good, test/blot; defective pictures have a bright blot."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for folder, count in (("train/good", 24), ("test/good", 6), ("test/blot", 5)):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(90, 110, (40, 36, 3), dtype=np.uint8)
            if folder == "test/blot":
                pixels[10:22, 12:24] = 250
            Image.fromarray(pixels).save(root / folder / f"{number:02d}.png")
    return root


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a command did: exit code, stdout and stderr."""

    code: object
    out: str
    err: str


@pytest.fixture
def orinspect(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run the command line in this process (a process of its own would take most of the tests' time)."""
    try:
        version("orinspect")
    except PackageNotFoundError:
        pytest.skip("commands are entry points: orinspect must be installed for them")
    from orinspect_edge_runtime import cli

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["orinspect", *map(str, arguments)])
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        return Ran(left.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if (
        os.geteuid() != 0
        or which("mount") is None
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("a small disk can only be mounted by root, and not in every container")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def as_plain_user() -> Iterator[None]:
    """Drop root's power to write everywhere, for tests of permissions."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def patchcore_graph() -> bytes:
    """ONNX bytes of the tiny encoder (means over cells of 8x8 pixels) with the patchcore head of heads.py."""
    f, i = np.float32, np.int64
    nodes = [
        _node("Cast", "frames", "x", to=1),
        _node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        _node("Mul", "t 1/255", "n"),
        _node("AveragePool", "n", "pool", kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        _node("Reshape", "pool channels,cells", "r"),
        _node("Transpose", "r", "patches", perm=[0, 2, 1]),
        _node("ReduceMean", "patches", "centre", axes=[1], keepdims=1),
        _node("ReduceMax", "patches", "most", axes=[1], keepdims=0),
        _node("Sub", "patches centre", "off"),
        _node("ReduceMean", "patches", "mean", axes=[1], keepdims=0),
        _node("ReduceL2", "off", "std", axes=[1], keepdims=0),
        _node("Concat", "mean most std", "embedding", axis=1),
        _node("Sub", "embedding group_mean", "e"),
        _node("MatMul", "e group_projection", "projected"),
        _node("Add", "projected group_bias", "logits"),
        _node("ReduceMax", "logits", "top", axes=[1], keepdims=1),
        _node("GreaterOrEqual", "logits top", "is_top"),
        _node("Cast", "is_top", "onehot", to=1),
        _node("Sub", "patches patch_mean", "p"),
        _node("MatMul", "p patch_projection", "z"),
        _node("ReduceSumSquare", "z", "zz", axes=[2], keepdims=1),
        _node("Mul", "z 2.", "2z"),
        _node("Mul", "zz 0.", "zeros"),
        _node("Add", "zeros 1.", "ones"),
        _node("Unsqueeze", "onehot second", "group"),
        _node("Mul", "ones group", "groups"),
        _node("Concat", "2z ones groups", "q", axis=2),
        _node("MatMul", "q bank", "near"),
        _node("ReduceMax", "near", "best", axes=[2], keepdims=1),
        _node("Sub", "zz best", "squared"),
        _node("Relu", "squared", "positive"),
        _node("Sqrt", "positive", "distance"),
        _node("MatMul", "onehot score_offset", "o"),
        _node("Unsqueeze", "o last_two", "offset"),
        _node("MatMul", "onehot score_scale", "s"),
        _node("Unsqueeze", "s last_two", "scale"),
        _node("Sub", "distance offset", "shifted"),
        _node("Mul", "shifted scale", "scaled"),
        _node("ReduceMax", "scaled", "score", axes=[1, 2], keepdims=0),
        _node("Reshape", "scaled rows,columns", "grid"),
        _node("Squeeze", "grid second", "cells_of_image"),
        _node("MatMul", "filter cells_of_image", "tall"),
        _node("MatMul", "tall filter_turned", "anomaly_map"),
    ]
    constants = {
        "1/255": np.array(1 / 255, f),
        "0.": np.array(0, f),
        "1.": np.array(1, f),
        "2.": np.array(2, f),
        "channels,cells": np.array([0, 3, 16], i),
        "rows,columns": np.array([0, 1, 4, 4], i),
        "second": np.array([1], i),
        "last_two": np.array([1, 2], i),
        "filter": axis_filter(SIDE // CELL, SIDE),
        "filter_turned": np.ascontiguousarray(axis_filter(SIDE // CELL, SIDE).T),
    }
    values = [_text(2, "tiny")] + [_block(1, node) for node in nodes]
    values += [_block(5, _tensor(name, array)) for name, array in constants.items()]
    values += [_block(11, _value(spec)) for spec in SPEC.inputs] + [_block(12, _value(spec)) for spec in OUTPUTS]
    return _number(1, 8) + _block(8, _number(2, 17)) + _block(7, b"".join(values))


# Protocol buffers, as far as ONNX needs them: https://protobuf.dev/programming-guides/encoding, onnx/onnx.proto.
def _varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _block(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _block(field, text.encode())


def _node(kind: str, inputs: str, output: str, **attributes: Any) -> bytes:
    """inputs: names with blanks between; `-` for an input that is left out."""
    parts = [_text(1, "" if name == "-" else name) for name in inputs.split()] + [_text(2, output), _text(4, kind)]
    for name, value in attributes.items():
        if isinstance(value, int):
            content, code = _number(3, value), 2
        elif isinstance(value, str):
            content, code = _text(4, value), 3
        else:
            content, code = b"".join(_number(8, item) for item in value), 7
        parts.append(_block(5, _text(1, name) + content + _number(20, code)))
    return b"".join(parts)


def _tensor(name: str, array: np.ndarray) -> bytes:
    dims = b"".join(_number(1, size) for size in array.shape)
    code = {"float32": 1, "int64": 7}[array.dtype.name]
    return dims + _number(2, code) + _text(8, name) + _block(9, array.tobytes())


def _value(spec: TensorSpec) -> bytes:
    dims = [_number(1, size) if isinstance(size, int) else _text(2, size) for size in spec.shape]
    shape = _block(2, b"".join(_block(1, dim) for dim in dims))
    code = {"float32": 1, "uint8": 2}[spec.dtype]
    return _text(1, spec.name) + _block(2, _block(1, _number(1, code) + shape))
