"""Is this board ready? One finding for each thing that is not, with the command that mends it.

Read-only. Not yet run on hardware.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orinspect_jetson.board import Board
from orinspect_jetson.host import Host
from orinspect_jetson.power import STATE_FOLDER, STATE_NAME
from orinspect_jetson.software import RELEASE_FILE
from orinspect_jetson.throttling import OVER_CURRENT_NAMES, read_throttling
from orinspect_jetson.traps import fastest, warn_about

PROBLEM = "problem"
WARNING = "warning"
# The engine builder needs strong typing, which TensorRT 8 lacks.
LEAST_TENSORRT = 10
BUILD_MEMORY_MIB = 2048
SMALL_BOARD_MIB = 8 * 1024
LEAST_DISK_MIB = 4096
# From this version on the wheels on the package index are built for server GPUs (sm_89, 90, 120, 121): not for sm_87.
FIRST_SERVER_WHEEL = (1, 29)
SITE_PACKAGES = ("/usr/local/lib/python3*/dist-packages", "/usr/lib/python3/dist-packages")
SWAP_COMMAND = (
    "sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile && sudo swapon /swapfile"
)


@dataclass(frozen=True)
class Finding:
    """level: problem (it will not work) or warning (it will be slow, or fail later). mend: a command, or a step."""

    level: str
    what: str
    mend: str


def examine(host: Host, board: Board) -> list[Finding]:
    """All findings, problems first. An empty list means ready."""
    if not board.identity.is_jetson:
        mend = "use the cpu or gpu extra of orinspect here; TensorRT engines are built on the board"
        return [Finding(WARNING, board.identity.name, mend)]
    found = [finding for check in CHECKS for finding in check(host, board)]
    return sorted(found, key=lambda finding: finding.level != PROBLEM)


def _identity(host: Host, board: Board) -> Iterator[Finding]:
    for conflict in board.conflicts:
        if "TNSPEC" in conflict and "Super" in conflict:
            mend = "flash the Super configuration again (the firmware keeps the GPU at its lower clock)"
        else:
            mend = "orinspect info --json  shows all signals; orinspect record-board  for a bug report"
        yield Finding(WARNING, conflict, mend)


def _tensorrt(host: Host, board: Board) -> Iterator[Finding]:
    software = board.software
    if software.tensorrt is None:
        yield Finding(PROBLEM, "TensorRT is not installed", "sudo apt-get install nvidia-jetpack")
        return
    if _numbers(software.tensorrt)[0] < LEAST_TENSORRT:
        what = f"TensorRT {software.tensorrt} cannot build strongly typed engines; {LEAST_TENSORRT}.0 or newer can"
        chip = board.identity.chip
        is_orin = chip is not None and chip.id == "tegra234"
        mend = "flash JetPack 6.2 or newer" if is_orin else "use onnxruntime: no newer TensorRT exists for this module"
        yield Finding(PROBLEM, what, mend)
        return
    release = software.release
    if release is not None and _numbers(release.tensorrt)[:2] != _numbers(software.tensorrt)[:2]:
        what = f"TensorRT {software.tensorrt} is not the {release.tensorrt} of L4T {software.l4t}"
        yield Finding(WARNING, what, "build the engines again after every change of TensorRT")


def _dla(host: Host, board: Board) -> Iterator[Finding]:
    module, software = board.identity.module, board.software
    if module is None or not module.dla_cores or software.dla_compiler:
        return
    if software.sbsa:
        yield Finding(WARNING, "this JetPack brings no compiler for the DLA", "build for the GPU")
    else:
        what = "libnvdla_compiler.so is missing: engines for the DLA cannot be built"
        yield Finding(WARNING, what, "sudo apt-get install --reinstall nvidia-l4t-dla-compiler")


def _memory(host: Host, board: Board) -> Iterator[Finding]:
    text = host.text("/proc/meminfo") or ""
    available, swap = _mib(text, "MemAvailable"), _mib(text, "SwapTotal")
    if available is not None and available < BUILD_MEMORY_MIB:
        what = f"{available} MiB of memory are free; building an engine wants {BUILD_MEMORY_MIB} or more"
        yield Finding(WARNING, what, "sudo systemctl isolate multi-user.target  (stops the desktop)")
    if swap == 0 and (board.memory_mib or 0) < SMALL_BOARD_MIB:
        yield Finding(WARNING, "no swap: a build that runs out of memory is killed", SWAP_COMMAND)


def _disk(host: Host, board: Board) -> Iterator[Finding]:
    if not host.is_live:
        return
    free = shutil.disk_usage("/").free // (1 << 20)
    if free < LEAST_DISK_MIB:
        yield Finding(WARNING, f"{free} MiB of disk are free", "sudo apt-get clean; sudo journalctl --vacuum-size=100M")


def _power(host: Host, board: Board) -> Iterator[Finding]:
    if host.exists(str(STATE_FOLDER / STATE_NAME)):
        what = "a killed measurement left its power mode in force"
        yield Finding(WARNING, what, "sudo orinspect power --restore")
    if board.power_mode is None or board.power_table is None:
        return
    best = fastest(board.power_table, board.identity.gpu_max_mhz)
    mend = "orinspect power  lists the modes" if best is None else f"sudo orinspect power --set {best.name}"
    for sentence in warn_about(board.power_mode, board.power_table, board.identity.gpu_max_mhz):
        yield Finding(WARNING, sentence, mend)


def _throttling(host: Host, board: Board) -> Iterator[Finding]:
    state = read_throttling(host)
    for name in state.alerts:
        yield Finding(WARNING, f"thermal throttling of {name} now", "improve the cooling, or choose a lower power mode")
    for name, count in state.events.items():
        if count:
            what = f"{count} {OVER_CURRENT_NAMES.get(name, name)} event(s) since boot"
            yield Finding(WARNING, what, "use a stronger supply, or a lower power mode; see whether the count rises")


def _cameras(host: Host, board: Board) -> Iterator[Finding]:
    if not host.glob("/dev/video*"):
        what = "no camera device (/dev/video*)"
        yield Finding(WARNING, what, "USB: plug it in; CSI: sudo /opt/nvidia/jetson-io/jetson-io.py, then reboot")


def _python(host: Host, board: Board) -> Iterator[Finding]:
    have = installed_packages(host)
    gpu = have.get("onnxruntime_gpu")
    if gpu is not None and "onnxruntime" in have:
        what = "onnxruntime and onnxruntime-gpu overwrite each other's files"
        yield Finding(PROBLEM, what, "pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them")
    chip = board.identity.chip
    is_server_wheel = gpu is not None and _numbers(gpu)[:2] >= FIRST_SERVER_WHEEL and "+" not in gpu
    if is_server_wheel and chip is not None and chip.id == "tegra234":
        what = f"onnxruntime-gpu {gpu} of the package index has no kernels for Orin (sm_87): it fails or uses the CPU"
        yield Finding(PROBLEM, what, "pip uninstall -y onnxruntime-gpu, then install a wheel built for your JetPack")
    numpy = have.get("numpy")
    if gpu is not None and numpy is not None and _numbers(numpy)[0] >= 2 and _numbers(gpu)[:2] < (1, 19):
        what = f"onnxruntime-gpu {gpu} was built for numpy 1; numpy {numpy} is installed"
        yield Finding(PROBLEM, what, "pip install 'numpy<2'")


def installed_packages(host: Host) -> dict[str, str]:
    """Python packages by normalised name, with versions, from the names of their .dist-info folders."""
    folders = [*SITE_PACKAGES, *(sys.path if host.is_live else ())]
    found: dict[str, str] = {}
    for folder in folders:
        for path in host.glob(f"{folder}/*.dist-info") if folder.startswith("/") else ():
            name, _, version = path.rpartition("/")[2].removesuffix(".dist-info").partition("-")
            found.setdefault(name.lower(), version)
    return found


def _mib(meminfo: str, name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB", meminfo, re.MULTILINE)
    return None if found is None else int(found[1]) // 1024


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,9}", version)) or (0,)


def _release_file(host: Host, board: Board) -> Iterator[Finding]:
    if board.software.l4t is None:
        mend = f"in a container: mount the board's {RELEASE_FILE} into it (docker run -v)"
        yield Finding(WARNING, "the L4T version is not known", mend)


CHECKS = (_tensorrt, _python, _identity, _release_file, _dla, _memory, _disk, _power, _throttling, _cameras)


def is_ready(findings: Iterable[Finding]) -> bool:
    """Nothing found that will not work?"""
    return all(finding.level != PROBLEM for finding in findings)
