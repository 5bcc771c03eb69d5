"""Recorded boards, composed from tests/data/boards (see SOURCE.md there) into folders that Host replays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orinspect_jetson.modules import read_data

DATA = Path(__file__).parents[1] / "data"
BOARDS = DATA / "boards"
Compose = Callable[..., Path]


@pytest.fixture(scope="session")
def board_table() -> dict[str, Any]:
    """boards.json: boards and releases."""
    table: dict[str, Any] = json.loads((BOARDS / "boards.json").read_text(encoding="utf-8"))
    return table


@pytest.fixture
def compose(tmp_path: Path, board_table: dict[str, Any]) -> Compose:
    """Make the recorded board `id` with release `l4t`; returns its folder."""

    def make(board_id: str, l4t: str) -> Path:
        board = next(row for row in board_table["boards"] if row["id"] == board_id)
        folder = tmp_path / f"{board_id}-{l4t}"
        shutil.rmtree(folder, ignore_errors=True)
        _compose(folder, board, l4t, board_table["releases"][l4t])
        return folder

    return make


def _compose(folder: Path, board: dict[str, Any], l4t: str, release: dict[str, Any]) -> None:
    shutil.copytree(BOARDS / "bin", folder / "bin")
    (folder / "SOURCE.md").write_text(f"Composed from tests/data/boards ({board['id']}, L4T {l4t}); not a recording.\n")
    for path, content in {**_identity_files(board, l4t), **_software_files(release), **_gpu_files(board, l4t)}.items():
        _write(folder / "root", path, content)
    _power_files(folder / "root", board)


def _identity_files(board: dict[str, Any], l4t: str) -> dict[str, str]:
    major = int(l4t.split(".", maxsplit=1)[0])
    model = board.get("model_r35", board["model"]) if major == 35 else board["model"]
    files = {
        "sys/firmware/devicetree/base/model": model + "\0",
        "sys/firmware/devicetree/base/compatible": "".join(f"{text}\0" for text in board["compatible"]),
        "etc/nv_boot_control.conf": f"TNSPEC {board['tnspec']}\nTEGRA_CHIPID {board['chip_id']}\n",
        "proc/meminfo": f"MemTotal:       {board['mem_mib'] * 1024} kB\nMemFree:        1000 kB\n",
        "proc/cmdline": "root=/dev/nvme0n1p1 rw rootwait\n",
        "sys/devices/system/cpu/possible": f"0-{board['cpus'] - 1}\n",
    }
    if major >= 36:
        files["proc/device-tree/chosen/nvidia,sku"] = board["label"] + "\0"
    if board["tpc_pg_mask"] is not None:
        files["sys/devices/platform/gpu.0/tpc_pg_mask"] = f"{board['tpc_pg_mask']}\n"
    return files


def _software_files(release: dict[str, Any]) -> dict[str, str]:
    target = "sbsa-linux" if release["sbsa"] else "aarch64-linux"
    libraries = "usr/lib/aarch64-linux-gnu"
    return {
        "etc/nv_tegra_release": f"{release['line']}\n{release['extra']}",
        "etc/os-release": f'ID=ubuntu\nVERSION_ID="{release["ubuntu"]}"\n',
        "proc/sys/kernel/osrelease": release["kernel"] + "\n",
        "var/lib/dpkg/versions": f"nvidia-l4t-core {release['package']}\nlibnvinfer-bin {release['tensorrt']}.1-1\n",
        "usr/local/cuda/version.json": json.dumps({"cuda": {"version": release["cuda"] + ".0"}}),
        f"usr/local/cuda/targets/{target}/include/cuda.h": "",
        f"{libraries}/libnvinfer.so.{release['tensorrt']}": "",
        f"{libraries}/libcudnn.so.{release['cudnn']}": "",
        **({} if release["sbsa"] else {f"{libraries}/nvidia/libnvdla_compiler.so": ""}),
    }


def _gpu_files(board: dict[str, Any], l4t: str) -> dict[str, str]:
    node = f"sys/class/devfreq/{board['gpu_node']}"
    if l4t.startswith("35.") and board["gpu_node"] == "17000000.gpu":
        node = "sys/class/devfreq/17000000.ga10b"
    return {
        f"{node}/{name}_freq": f"{hz}\n" for name, hz in (("min", 306000000), ("cur", 306000000), ("max", 918000000))
    }


def _power_files(root: Path, board: dict[str, Any]) -> None:
    name = board["configuration"]
    table = read_data("nvpmodel_orin.json").get(f"nvpmodel/nvpmodel_{name}.conf")
    modes = (
        [{"id": i, "name": text} for i, text in enumerate(board.get("modes", ()))] if table is None else table["modes"]
    )
    default = 0 if table is None else table["default"]
    text = "\n".join(_mode_text(mode, board["cpus"]) for mode in modes) + f"\n< PM_CONFIG DEFAULT={default} >\n"
    _write(root, f"etc/nvpmodel/nvpmodel_{name}.conf", text)
    (root / "etc/nvpmodel.conf").symlink_to(f"/etc/nvpmodel/nvpmodel_{name}.conf")
    _write(root, "var/lib/nvpmodel/status", f"pmode:{board['mode']:04d}")


def _mode_text(mode: dict[str, Any], cpus: int) -> str:
    lines = [f"< POWER_MODEL ID={mode['id']} NAME={mode['name']} >"]
    lines += [f"CPU_ONLINE CORE_{i} {int(i < mode.get('cpu_online', cpus))}" for i in range(cpus)]
    if mode.get("tpc_pg_mask") is not None:
        lines.append(f"TPC_POWER_GATING TPC_PG_MASK {mode['tpc_pg_mask']}")
    lines += ["GPU_POWER_CONTROL_ENABLE GPU_PWR_CNTL_EN on", f"CPU_A78_0 MAX_FREQ {mode.get('cpu_max_khz') or -1}"]
    lines += ["GPU MIN_FREQ 0", f"GPU MAX_FREQ {mode.get('gpu_max_hz') or -1}"]
    lines.append(f"EMC MAX_FREQ {mode.get('emc_max_hz') or 0}")
    for core in ("DLA0_CORE", "DLA1_CORE"):
        if f"{core.lower()}_max_hz" in mode:
            lines.append(f"{core} MAX_FREQ {mode[f'{core.lower()}_max_hz'] or -1}")
    return "\n".join(lines) + "\n"


def _write(root: Path, path: str, content: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
