"""Findings on boards with one thing wrong each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orinspect_jetson.board import read_board
from orinspect_jetson.doctor import Finding, examine, installed_packages, is_ready
from orinspect_jetson.host import Host

Compose = Callable[[str, str], Path]
MEMINFO = "MemTotal: 15758336 kB\nMemAvailable: 12000000 kB\nSwapTotal: 7800000 kB\n"


def examine_folder(folder: Path) -> list[Finding]:
    host = Host(folder)
    return examine(host, read_board(host))


def healthy(folder: Path) -> Path:
    with (folder / "root/proc/meminfo").open("a") as file:
        file.write("MemAvailable: 12000000 kB\nSwapTotal: 7800000 kB\n")
    (folder / "root/dev").mkdir()
    (folder / "root/dev/video0").write_text("")
    return folder


def write(folder: Path, path: str, content: str = "") -> None:
    (folder / "root" / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / "root" / path).write_text(content)


def test_a_healthy_board_has_no_findings(compose: Compose) -> None:
    assert examine_folder(healthy(compose("orin-nx-16gb", "36.4.3"))) == []


SITE = "usr/local/lib/python3.10/dist-packages"


@pytest.mark.parametrize(
    ("files", "level", "what", "mend"),
    [
        ({f"{SITE}/onnxruntime_gpu-1.31.1.dist-info/x": ""}, "problem", "no kernels for Orin", "uninstall"),
        (
            {f"{SITE}/onnxruntime_gpu-1.23.0.dist-info/x": "", f"{SITE}/onnxruntime-1.23.2.dist-info/x": ""},
            "problem",
            "overwrite each other",
            "uninstall",
        ),
        (
            {f"{SITE}/onnxruntime_gpu-1.17.0.dist-info/x": "", f"{SITE}/numpy-2.2.6.dist-info/x": ""},
            "problem",
            "built for numpy 1",
            "numpy<2",
        ),
        ({"proc/meminfo": MEMINFO.replace("12000000", "900000")}, "warning", "878 MiB of memory", "multi-user"),
        ({"var/lib/orinspect/power.json": "{}"}, "warning", "left its power mode", "power --restore"),
        (
            {"sys/devices/platform/soctherm-oc-event/hwmon/hwmon3/oc1_event_cnt": "4"},
            "warning",
            "4 under-voltage event",
            "supply",
        ),
        ({"var/lib/nvpmodel/status": "pmode:0003"}, "warning", "2.25 times", "power --set MAXN"),
    ],
)
def test_one_thing_wrong(compose: Compose, files: dict[str, str], level: str, what: str, mend: str) -> None:
    folder = healthy(compose("orin-nx-16gb", "36.4.3"))
    for path, content in files.items():
        write(folder, path, content)
    found = examine_folder(folder)
    assert len(found) == 1
    assert found[0].level == level
    assert what in found[0].what
    assert mend in found[0].mend
    assert is_ready(found) is (level != "problem")


def test_what_is_missing(compose: Compose) -> None:
    folder = healthy(compose("orin-nx-16gb", "36.4.3"))
    libraries = folder / "root/usr/lib/aarch64-linux-gnu"
    (libraries / "nvidia/libnvdla_compiler.so").unlink()
    (libraries / "libnvinfer.so.10.3.0").unlink()
    (folder / "root/var/lib/dpkg/versions").write_text("")
    (folder / "root/etc/nv_tegra_release").unlink()
    (folder / "root/dev/video0").unlink()
    text = " ".join(finding.what for finding in examine_folder(folder))
    for words in (
        "TensorRT is not installed",
        "libnvdla_compiler.so is missing",
        "L4T version is not known",
        "no camera",
    ):
        assert words in text


def test_no_advice_to_install_a_compiler_that_does_not_exist(compose: Compose) -> None:
    found = examine_folder(healthy(compose("agx-orin-64gb", "39.2.0")))
    assert [finding.mend for finding in found] == ["build for the GPU"]


def test_no_swap_on_a_small_board(compose: Compose) -> None:
    folder = healthy(compose("orin-nano-8gb-super", "36.4.3"))
    write(folder, "proc/meminfo", "MemTotal: 7789568 kB\nMemAvailable: 6000000 kB\nSwapTotal: 0 kB\n")
    assert [finding.what for finding in examine_folder(folder)] == [
        "no swap: a build that runs out of memory is killed"
    ]


def test_xavier_is_not_told_to_flash_what_does_not_exist(compose: Compose) -> None:
    found = examine_folder(healthy(compose("xavier-nx-8gb", "35.4.1")))
    assert found[0].level == "problem"
    assert "onnxruntime" in found[0].mend


def test_elsewhere(tmp_path: Path) -> None:
    found = examine_folder(tmp_path)
    assert [finding.level for finding in found] == ["warning"]
    assert "not a Jetson" in found[0].what


def test_packages_of_this_machine() -> None:
    assert "pytest" in installed_packages(Host("/"))


def test_a_wheel_built_for_the_board_is_fine(compose: Compose) -> None:
    folder = healthy(compose("orin-nx-16gb", "36.4.3"))
    write(folder, f"{SITE}/onnxruntime_gpu-1.31.1+jp6.dist-info/x")
    assert examine_folder(folder) == []
