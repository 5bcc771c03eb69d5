"""A passport is read back exactly or refused, and every device gets the right verdict on every engine."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orinspect_edge_runtime import passport as passports
from orinspect_edge_runtime.device import RECORDING, Device, supported_version, this_device, with_library
from orinspect_edge_runtime.errors import BundleError, CheckFailed, InputError
from orinspect_edge_runtime.manifest import TensorSpec
from orinspect_edge_runtime.passport import EnginePassport

PLAN = bytes(range(256)) * 4
ONNX = "a" * 64
# L4T release, its TensorRT and CUDA (JetPack 5.1.2, 6.0, 6.1, 6.2, 6.2.2, 7.1, 7.2, 7.2.1).
RELEASES = (
    ("35.4.1", "8.5.2", "11.4"),
    ("36.3.0", "8.6.2", "12.2"),
    ("36.4.0", "10.3.0", "12.6"),
    ("36.4.3", "10.3.0", "12.6"),
    ("36.5.0", "10.3.0", "12.6"),
    ("38.4.0", "10.13.3", "13.0"),
    ("39.2.0", "10.16.2", "13.2"),
    ("39.2.1", "10.16.2", "13.2"),
)
MODULES = (
    ("p3767-0000", "Jetson Orin NX 16GB", 8),
    ("p3767-0001", "Jetson Orin NX 8GB", 8),
    ("p3767-0003", "Jetson Orin Nano 8GB", 8),
    ("p3767-0004", "Jetson Orin Nano 4GB", 4),
    ("p3701-0000", "Jetson AGX Orin", 16),
    ("p3701-0004", "Jetson AGX Orin 32GB", 14),
    ("p3701-0005", "Jetson AGX Orin 64GB", 16),
    ("p3701-0008", "Jetson AGX Orin Industrial", 16),
)
DEVICES = [
    Device(part, name, l4t, tensorrt, cuda, "8.7", sm, "MAXN", 4000)
    for (l4t, tensorrt, cuda), (part, name, sm) in itertools.product(RELEASES, MODULES)
]


def passport_of(device: Device, **fields: object) -> EnginePassport:
    values: dict[str, object] = {name: getattr(device, name) for name in SHARED}
    values |= {
        "precision": "fp16",
        "head": "patchcore",
        "onnx_sha256": ONNX,
        "plan_sha256": hashlib.sha256(PLAN).hexdigest(),
        "plan_bytes": len(PLAN),
        "inputs": (TensorSpec("frames", "uint8", ("batch", 32, 32, 3)),),
        "outputs": (TensorSpec("score", "float32", ("batch",)),),
        "profile": {"batch": (1, 1, 8)},
        "least_cosine": 1.0,
        "rank_correlation": 1.0,
        "created_with": "test",
    }
    return EnginePassport(**values | fields)


SHARED = ("module", "module_name", "l4t", "tensorrt", "cuda", "sm", "sm_count", "power_mode")
ORIN = DEVICES[3 * len(MODULES) + 2]


def test_the_matrix_of_releases_and_modules_has_only_right_verdicts() -> None:
    verdicts = 0
    for built, here in itertools.product(DEVICES, DEVICES):
        found = passports.differences(passport_of(built), here, "BUNDLE")
        wrong = [
            word
            for word, same in (
                ("built on", built.module == here.module),
                ("L4T", built.l4t == here.l4t),
                ("TensorRT", built.tensorrt == here.tensorrt),
                ("CUDA", built.cuda.split(".")[0] == here.cuda.split(".")[0]),
            )
            if not same
        ]
        assert len(found) == len(wrong), (built, here, found)
        assert all(word in line for word, line in zip(wrong, found, strict=True)), found
        assert all("orinspect build BUNDLE --precision fp16" in line and "\n" not in line for line in found)
        verdicts += 1
    assert verdicts == (len(RELEASES) * len(MODULES)) ** 2 == 4096


@pytest.mark.parametrize("device", DEVICES, ids=lambda d: f"{d.l4t}-{d.module}")
def test_tensorrt_8_is_refused_in_one_sentence_wherever_it_is(device: Device) -> None:
    trt = types.SimpleNamespace(__version__=device.tensorrt, __name__="tensorrt")
    if device.l4t.startswith("35.") or device.l4t == "36.3.0":
        with pytest.raises(InputError, match=r"^TensorRT 8\.\d\.2 is too old: orinspect needs 10\.3 or newer.*JetPack"):
            with_library(device, trt)
    else:
        assert with_library(device, trt) == device


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"module": "p3767-0004", "module_name": "Jetson Orin Nano 4GB"},
            "was built on a Jetson Orin Nano 4GB, this is",
        ),
        ({"module": "", "module_name": ""}, "was built on a computer that is no Jetson"),
        ({"l4t": "36.4.0"}, "was built for L4T 36.4.0, this device has 36.4.3"),
        ({"l4t": ""}, "was built for L4T none, this device has 36.4.3"),
        ({"tensorrt": "10.16.2"}, "was built for TensorRT 10.16.2, this device has 10.3.0"),
        ({"cuda": "13.2"}, "was built for CUDA 13, this device has 12"),
        ({"sm": "8.6"}, "was built for compute capability 8.6, this device has 8.7"),
        ({"host_code": True}, "asks to run its own code on the CPU"),
    ],
)
def test_each_difference_is_one_sentence_with_the_command(change: dict[str, object], sentence: str) -> None:
    (line,) = passports.differences(passport_of(ORIN, **change), ORIN, "parts")
    assert sentence in line
    assert "orinspect build parts --precision fp16" in line


def test_a_newer_cuda_of_the_same_major_is_no_difference() -> None:
    assert passports.differences(passport_of(ORIN, cuda="12.2"), ORIN) == []


def test_another_power_mode_or_sm_mask_is_a_remark_only() -> None:
    passport = passport_of(ORIN, power_mode="15W", sm_count=4)
    assert passports.differences(passport, ORIN) == []
    assert passports.remarks(passport, ORIN) == [
        "the engine was tuned in power mode 15W, the mode now is MAXN",
        "the engine was tuned for 4 SM, 8 are switched on now",
    ]
    assert passports.remarks(passport_of(ORIN), ORIN) == []


def test_a_recording_runs_on_no_device_and_an_engine_on_no_recorder() -> None:
    recording = passport_of(ORIN, kind=RECORDING)
    (line,) = passports.differences(recording, ORIN, "parts")
    assert "recording made by orinspect's own tests, not a TensorRT engine" in line
    assert passports.differences(recording, dataclasses.replace(ORIN, library=RECORDING)) == []
    assert len(passports.differences(passport_of(ORIN), dataclasses.replace(ORIN, library=RECORDING))) == 1
    assert "unknown kind 'onnx'" in passports.differences(passport_of(ORIN, kind="onnx"), ORIN)[0]


@given(st.integers(0, len(PLAN) - 1))
def test_a_truncated_or_changed_plan_is_refused(cut: int) -> None:
    passport = passport_of(ORIN)
    (line,) = passports.file_differences(passport, PLAN[:cut], ONNX, "parts")
    assert line.startswith(f"the engine file is cut off ({cut} of 1024 bytes): run  orinspect build parts")
    changed = PLAN[:cut] + bytes([PLAN[cut] ^ 1]) + PLAN[cut + 1 :]
    assert "not the one its passport" in passports.file_differences(passport, changed, ONNX)[0]
    assert "not the one its passport" in passports.file_differences(passport, PLAN + PLAN[: cut + 1], ONNX)[0]


def test_another_graph_is_refused_and_require_tells_everything() -> None:
    passport = passport_of(ORIN, head="padim", tensorrt="10.16.2")
    passports.require(passport_of(ORIN), ORIN, PLAN, ONNX)
    with pytest.raises(CheckFailed) as caught:
        passports.require(passport, ORIN, PLAN[:-1], "b" * 64, "parts")
    text = str(caught.value)
    assert "TensorRT 10.16.2" in text
    assert "cut off" in text
    assert "another fp16 graph" in text
    assert "orinspect build parts --precision fp16 --head padim" in text


def test_every_flipped_byte_of_a_passport_is_refused() -> None:
    content = passports.to_bytes(passport_of(ORIN, build={"level": 3, "minutes": 1.5, "cache": "new"}))
    for place in range(len(content)):
        for bit in (0x01, 0x20, 0x80):
            changed = content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
            with pytest.raises(BundleError):
                passports.from_bytes(changed, "passport.json")


@given(st.integers(0, 3000), st.binary(max_size=20))
def test_a_cut_or_foreign_passport_is_refused(cut: int, more: bytes) -> None:
    content = passports.to_bytes(passport_of(ORIN))
    for damaged in (content[: min(cut, len(content) - 1)], content + more + b" ", more):
        with pytest.raises(BundleError, match=r"^passport\.json: "):
            passports.from_bytes(damaged, "passport.json")


texts = st.text(max_size=20)


@given(
    module=texts,
    l4t=texts,
    sm_count=st.integers(0, 10**6),
    profile=st.dictionaries(texts, st.tuples(*[st.integers(0, 10**9)] * 3), max_size=4),
    build=st.dictionaries(texts, st.integers() | texts | st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    host_code=st.booleans(),
    least_cosine=st.floats(-1, 1) | st.integers(-1, 1),
)
def test_a_passport_survives_the_disk(**fields: object) -> None:
    passport = passport_of(ORIN, **fields)
    assert passports.from_bytes(passports.to_bytes(passport), "passport.json") == passport


def test_a_newer_format_names_the_remedy() -> None:
    content = passports.to_bytes(passport_of(ORIN, format_version=2))
    with pytest.raises(BundleError, match=r"format version 2.*pip install --upgrade orinspect"):
        passports.from_bytes(content, "passport.json")


@pytest.mark.parametrize(
    ("name", "version", "is_supported"),
    [
        ("tensorrt", "8.6.2", False),
        ("tensorrt", "10.0.1", False),
        ("tensorrt", "10.3.0", True),
        ("tensorrt", "10.13.3.9", True),
        ("tensorrt", "11.4.1", True),
        ("tensorrt_rtx", "1.7.1.116", True),
        ("tensorrt", "1.7.1.116", False),
    ],
)
def test_supported_versions(name: str, version: str, is_supported: bool) -> None:
    trt = types.SimpleNamespace(__version__=version, __name__=name)
    if is_supported:
        assert supported_version(trt) == version
    else:
        with pytest.raises(InputError):
            supported_version(trt)


def test_this_computer_knows_at_least_its_free_memory() -> None:
    assert this_device().free_mib > 0
