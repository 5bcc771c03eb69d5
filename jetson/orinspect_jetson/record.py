"""Copy what orinspect reads of a board into a folder that replays anywhere: a test, and the form of a bug report.

Serial numbers, addresses and user names are not among the files. Not yet run on hardware.
"""

from __future__ import annotations

import shlex
from datetime import datetime, timezone
from pathlib import Path

from orinspect_edge_runtime.durable import new_folder
from orinspect_jetson.host import Answer, Host
from orinspect_jetson.software import CUDNN_PACKAGES, TENSORRT_PACKAGES

FILES = (
    "/sys/firmware/devicetree/base/model",
    "/sys/firmware/devicetree/base/compatible",
    "/proc/device-tree/model",
    "/proc/device-tree/compatible",
    "/proc/device-tree/chosen/nvidia,sku",
    "/proc/device-tree/chosen/ids",
    "/etc/nv_tegra_release",
    "/etc/nv_boot_control.conf",
    "/etc/nvpmodel.conf",
    "/etc/nvpmodel/*.conf",
    "/etc/os-release",
    "/var/lib/nvpmodel/status",
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/sys/devices/system/cpu/possible",
    "/sys/devices/system/cpu/online",
    "/sys/devices/platform/gpu.0/tpc_pg_mask",
    "/sys/devices/platform/17000000.gpu/tpc_pg_mask",
    "/sys/devices/platform/bus@0/17000000.gpu/tpc_pg_mask",
    "/sys/devices/17000000.ga10b/tpc_pg_mask",
    "/sys/class/devfreq/*/*_freq",
    "/sys/class/thermal/thermal_zone*/type",
    "/sys/class/thermal/thermal_zone*/temp",
    "/sys/class/thermal/cooling_device*/type",
    "/sys/class/thermal/cooling_device*/cur_state",
    "/sys/bus/i2c/devices/*/name",
    "/sys/bus/i2c/devices/*/hwmon/hwmon*/in[123]_*",
    "/sys/bus/i2c/devices/*/hwmon/hwmon*/curr[123]_*",
    "/sys/devices/platform/soctherm-oc-event/hwmon/hwmon*/oc?_event_cnt",
    "/usr/local/cuda/version.json",
    "/.dockerenv",
)
# Only their names are read: recorded empty.
NAMES = (
    "/usr/lib/aarch64-linux-gnu/libnvinfer.so.*",
    "/usr/lib/aarch64-linux-gnu/libcudnn.so.*",
    "/usr/lib/aarch64-linux-gnu/libnvdla_compiler.so",
    "/usr/lib/aarch64-linux-gnu/*/libnvdla_compiler.so",
    "/dev/video*",
)
FOLDERS = ("/usr/local/cuda/targets/*-linux", "/usr/local/lib/python3*/dist-packages/*.dist-info")
PACKAGES = ("nvidia-l4t-core", "nvidia-jetpack", *TENSORRT_PACKAGES, *CUDNN_PACKAGES)
COMMANDS = (
    ("uname", "-m"),
    ("uname", "-r"),
    ("nvpmodel", "-q"),
    ("jetson_clocks", "--show"),
    ("tegrastats", "--interval", "500"),
    *(("dpkg-query", "--showformat=${Version}", "--show", package) for package in PACKAGES),
)
SWITCHES = ("quiet", "splash", "mem=", "maxcpus=", "nr_cpus=", "possible_cpus=")


def record_board(host: Host, out: Path, *, force: bool = False) -> list[str]:
    """Write the recording to `out`; returns what was recorded. Raises InputError when `out` exists already.

    Links are recorded as what they point at; /etc/nvpmodel.conf as a link, because its target's name is a signal.
    """
    with new_folder(out, replace=force) as folder:
        recorded = [*_copy_files(host, folder / "root"), *_record_commands(host, folder / "bin")]
        when = datetime.now(timezone.utc).isoformat(timespec="seconds")
        text = (
            f"Recorded on a board by `orinspect record-board` at {when}.\n\nReplay: orinspect info --root THIS-FOLDER\n"
        )
        (folder / "SOURCE.md").write_text(text + "\n" + "".join(f"- {name}\n" for name in recorded), encoding="utf-8")
    return recorded


def _copy_files(host: Host, root: Path) -> list[str]:
    recorded = []
    root.mkdir(parents=True)
    for path in (path for pattern in FILES for path in host.glob(pattern)):
        content = host.raw(path)
        if content is not None and _link(host, root, path) is None:
            _write(root, path, content)
            recorded.append(path)
    for path in (path for pattern in NAMES for path in host.glob(pattern)):
        _write(root, path, b"")
    for path in (path for pattern in FOLDERS for path in host.glob(pattern)):
        (root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    _write(root, "/proc/cmdline", _safe_switches(host.text("/proc/cmdline") or "").encode())
    return recorded


def _link(host: Host, root: Path, path: str) -> str | None:
    """Record /etc/nvpmodel.conf as the link it is; its target is among the files."""
    if path != "/etc/nvpmodel.conf":
        return None
    target = host.resolve(path).resolve()
    here = Path("/") if host.is_live else host.root
    if not target.is_relative_to(here / "etc/nvpmodel"):
        return None
    link = root / path.lstrip("/")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target.relative_to(here / "etc"))
    return str(target)


def _record_commands(host: Host, folder: Path) -> list[str]:
    """One script a program, that answers each recorded command as the board did."""
    folder.mkdir(parents=True)
    answers: dict[str, list[tuple[tuple[str, ...], Answer]]] = {}
    for command in COMMANDS:
        answer = host.run(*command, timeout_s=2 if command[0] == "tegrastats" else 10)
        if answer is not None:
            answers.setdefault(command[0], []).append((command, answer))
    for program, rows in answers.items():
        cases = "".join(_case(command, answer) for command, answer in rows)
        script = (
            f'#!/bin/sh\n# Recorded answers.\ncase "$*" in\n{cases}*) echo "not recorded: $*" >&2; exit 127 ;;\nesac\n'
        )
        (folder / program).write_text(script, encoding="utf-8")
        (folder / program).chmod(0o755)
    return [" ".join(command) for rows in answers.values() for command, _ in rows]


def _case(command: tuple[str, ...], answer: Answer) -> str:
    arguments = shlex.quote(" ".join(command[1:]))
    out, err = shlex.quote(answer.out), shlex.quote(answer.err)
    return f"{arguments}) printf %s {out}; printf %s {err} >&2; exit {answer.code if answer.code >= 0 else 1} ;;\n"


def _safe_switches(cmdline: str) -> str:
    """Only the switches that orinspect reads: the rest of a kernel's command line names disks and serial numbers."""
    return " ".join(word for word in cmdline.split() if word.startswith(SWITCHES))


def _write(root: Path, path: str, content: bytes) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
