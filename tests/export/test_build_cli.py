"""The command `build`: what it refuses before anything is built, and that the guide speaks of options that exist."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from orinspect_edge_runtime.errors import BundleError, InputError
from orinspect_export.build_cli import build

GUIDE = Path(__file__).parents[2] / "docs/first-engine-on-your-orin.md"


def run(*arguments: object) -> None:
    build.main([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("tensorrt")
    module.__version__ = "10.3.0"
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


def test_help_has_an_example() -> None:
    result = CliRunner().invoke(build, ["--help"])
    assert result.exit_code == 0
    assert "Example:  orinspect build BUNDLE --precision fp16" in result.output


def test_a_missing_bundle_precision_or_head_is_named(real_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        run(tmp_path / "none")
    with pytest.raises(BundleError, match=r"no fp16 graph with the head 'patchcore' \(it has: fp32 patchcore\)"):
        run(real_bundle)
    with pytest.raises(BundleError, match="no fp32 graph with the head 'padim'"):
        run(real_bundle, "--precision", "fp32", "--head", "padim")


@pytest.mark.parametrize("arguments", [["--level", "6"], ["--dla", "2"], ["--batch", "many"]])
def test_options_out_of_range_are_wrong_usage(real_bundle: Path, arguments: list[str]) -> None:
    with pytest.raises(click.UsageError):
        run(real_bundle, *arguments)


def test_without_tensorrt_it_says_where_it_comes_from(real_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(
        InputError, match="TensorRT's Python module is not installed: on a Jetson run  sudo apt install"
    ):
        run(real_bundle, "--precision", "fp32")
    assert not (real_bundle / "engines").exists()


def test_tensorrt_8_is_refused_before_anything_is_built(real_bundle: Path, tensorrt: types.ModuleType) -> None:
    tensorrt.__version__ = "8.6.2"
    with pytest.raises(InputError, match=r"^TensorRT 8\.6\.2 is too old: .*JetPack 6\.1"):
        run(real_bundle, "--precision", "fp32")
    assert not (real_bundle / "engines").exists()


@pytest.mark.parametrize("option", ["--batch=0", "--batch=-1"])
def test_a_batch_below_one_is_wrong_usage(real_bundle: Path, option: str) -> None:
    with pytest.raises(click.UsageError):
        run(real_bundle, option)


def test_the_guide_names_options_and_messages_that_exist() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    known = {name for parameter in build.params for name in parameter.opts}
    used = {
        option
        for command in re.findall(r"orinspect build[^`\n]*", text)
        for option in re.findall(r"--[a-z-]+", command)
    }
    assert {"--precision", "--dla"} <= used <= known
    assert set(re.findall(r"`(--(?:head|recipe|level|dla-force))\b", text)) <= known
    assert "not yet run on\nhardware" in text.lower() or "Not yet run on\nhardware" in text
    sources = " ".join(
        p.read_text(encoding="utf-8") for p in (GUIDE.parents[1] / "export/orinspect_export").glob("build_*.py")
    )
    for message in ("the builder was killed, most likely by the kernel because memory ran out", "is not installed"):
        assert message in text
        assert message in sources
