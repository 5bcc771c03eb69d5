"""predict and advise as a user calls them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from orinspect_edge_runtime.errors import InputError
from orinspect_jetson.predict_cli import advise, predict
from orinspect_jetson.predictor.advice import NO, SURE
from orinspect_jetson.predictor.advice import advise as rank
from orinspect_jetson.predictor.layers import published_tables


def run(command: object, *arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    return result.output


def test_predict_prints_intervals_and_says_what_it_is() -> None:
    text = run(predict, "resnet50", "--device", "orin-nx-16", "--mode", "25W", "--precision", "int8")
    assert "8 SM at 408 MHz" in text
    assert "latency" in text
    assert "90 %" in text
    assert "not yet run on hardware" in text


def test_predict_as_json() -> None:
    made = json.loads(run(predict, "yolo11n", "--device", "orin-nano-8", "--json", "--batch", "2"))
    assert made["point"]["mode"] == "MAXN_SUPER"
    assert made["latency_ms"]["low"] < made["latency_ms"]["value"] < made["latency_ms"]["high"]
    assert made["batch"] == 2


def test_advise_lists_only_what_keeps_up() -> None:
    found = json.loads(run(advise, "YOLO26x", "--fps", "30", "--json"))
    assert found
    assert all(a["keeps_up"] != NO and a["allowed"] for a in found)
    every = json.loads(run(advise, "YOLO26x", "--fps", "30", "--json", "--all"))
    assert len(every) > len(found)
    assert "keeps up with 100000" in run(advise, "YOLO26x", "--fps", "100000")


def test_advise_ranks_sure_before_likely_and_frugal_first() -> None:
    ranked = rank(published_tables()["YOLO11m"], fps=30, watts=15, precision="fp16")
    allowed = [a for a in ranked if a.allowed]
    sure = [a.average_w for a in allowed if a.keeps_up == SURE]
    assert ranked[: len(allowed)] == allowed
    assert sure == sorted(sure)
    assert all(a.average_w <= 15 for a in allowed)
    slow = {a.point.label: a for a in ranked}["orin-nano-4 7W_CPU"]
    assert slow.keeps_up == NO


@pytest.mark.parametrize("fps", ["0", "-3", "nan"])
def test_rates_that_are_none(fps: str) -> None:
    with pytest.raises(InputError, match="above 0"):
        run(advise, "resnet50", "--fps", fps)


@pytest.mark.parametrize("size", ["groups", "groups=0", "=3", "groups=x"])
def test_bad_sizes(size: str) -> None:
    with pytest.raises(InputError, match="NAME=N"):
        run(predict, "resnet50", "--size", size)


def test_neither_numpy_nor_onnx_is_loaded_for_help() -> None:
    code = "import sys, orinspect_jetson.predict_cli; sys.exit(bool({'numpy', 'onnx', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_published_networks_need_no_onnx() -> None:
    code = """if True:
        import sys
        sys.modules["onnx"] = None
        from orinspect_jetson.predict_cli import predict
        predict(["resnet50"], standalone_mode=False)
    """
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
