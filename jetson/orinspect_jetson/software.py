"""The software of a board: L4T, JetPack, TensorRT, CUDA, cuDNN, each from more than one place, with the conflicts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from orinspect_jetson.host import Host
from orinspect_jetson.jetpack import (
    Release,
    majors_of_kernel,
    parse_package_version,
    parse_release_line,
    release_of,
)

RELEASE_FILE = "/etc/nv_tegra_release"
LIBRARIES = ("/usr/lib/aarch64-linux-gnu", "/usr/local/lib")
# Folders in which the packages of JetPack 5, 6 and 7 put NVIDIA's own libraries.
TEGRA_LIBRARIES = ("tegra", "nvidia", "nvidia/current")
TENSORRT_PACKAGES = ("libnvinfer-bin", "libnvinfer11", "libnvinfer10", "libnvinfer8")
CUDNN_PACKAGES = ("libcudnn9-cuda-13", "libcudnn9-cuda-12", "libcudnn8")
DLA_COMPILER = "libnvdla_compiler.so"


@dataclass(frozen=True)
class Software:
    """What is installed; None: not found. release: the row of the JetPack table; is_exact: of exactly this L4T.

    sbsa: the server user space of JetPack 7 (None: unknown). dla_compiler: libnvdla_compiler.so is there.
    """

    l4t: str | None
    release: Release | None
    is_exact: bool
    jetpack_package: str | None
    kernel: str | None
    ubuntu: str | None
    tensorrt: str | None
    cuda: str | None
    cudnn: str | None
    sbsa: bool | None
    dla_compiler: bool
    in_container: bool
    conflicts: tuple[str, ...]

    @property
    def jetpack(self) -> str | None:
        """JetPack's name: of the exact L4T release, else of the installed meta package."""
        if self.release is not None and self.is_exact:
            return self.release.jetpack
        return self.jetpack_package


def read_software(host: Host) -> Software:
    """Read all versions. Never raises for what is missing."""
    from_file = parse_release_line(host.text(RELEASE_FILE) or "")
    from_package = _l4t_package(host)
    kernel = _first_line(host, "uname", "-r")
    l4t = from_file or from_package
    release, is_exact = (None, False) if l4t is None else release_of(l4t)
    inside = in_container(host)
    cuda = _cuda(host)
    return Software(
        l4t=l4t,
        release=release,
        is_exact=is_exact,
        jetpack_package=_package(host, "nvidia-jetpack"),
        kernel=kernel,
        ubuntu=_ubuntu(host),
        tensorrt=_library_version(host, "libnvinfer.so") or _package(host, *TENSORRT_PACKAGES),
        cuda=cuda,
        cudnn=_library_version(host, "libcudnn.so") or _package(host, *CUDNN_PACKAGES),
        sbsa=_sbsa(host, release),
        dla_compiler=has_dla_compiler(host),
        in_container=inside,
        conflicts=(*_l4t_conflicts(from_file, from_package, kernel, inside), *_cuda_conflicts(cuda, release)),
    )


def in_container(host: Host) -> bool:
    """Does this run in a container?"""
    return host.exists("/.dockerenv") or host.exists("/run/.containerenv")


def has_dla_compiler(host: Host) -> bool:
    """Is libnvdla_compiler.so there? Without it TensorRT cannot build for the DLA; older ones do not even import."""
    folders = [LIBRARIES[0], *(f"{LIBRARIES[0]}/{name}" for name in TEGRA_LIBRARIES)]
    return any(host.exists(f"{folder}/{DLA_COMPILER}") for folder in folders)


def _l4t_package(host: Host) -> str | None:
    answer = host.run("dpkg-query", "--showformat=${Version}", "--show", "nvidia-l4t-core")
    return None if answer is None or answer.code != 0 else parse_package_version(answer.out)


def _package(host: Host, *names: str) -> str | None:
    """Upstream version of the first installed package: "10.3.0.30-1+cuda12.5" -> "10.3.0.30"."""
    for name in names:
        answer = host.run("dpkg-query", "--showformat=${Version}", "--show", name)
        if answer is not None and answer.code == 0 and answer.out.strip():
            return re.split(r"[-+]", answer.out.strip())[0]
    return None


def _library_version(host: Host, name: str) -> str | None:
    """Version in the name of a shared library's file: libnvinfer.so.10.3.0 -> "10.3.0" (also in containers)."""
    found = []
    for folder in LIBRARIES:
        for path in host.glob(f"{folder}/{name}.*"):
            version = path.rpartition(".so.")[2]
            if re.fullmatch(r"\d+(\.\d+)+", version):
                found.append(version)
    return max(found, key=lambda v: [int(part) for part in v.split(".")], default=None)


def _cuda(host: Host) -> str | None:
    """CUDA's version: its own version.json, else the name of its folder (/usr/local/cuda-12.6)."""
    try:
        version = json.loads(host.text("/usr/local/cuda/version.json") or "")["cuda"]["version"]
        return str(version)
    except (ValueError, KeyError, TypeError):
        folders = [path.rpartition("cuda-")[2] for path in host.glob("/usr/local/cuda-*.*")]
        return max(folders, default=None)


def _sbsa(host: Host, release: Release | None) -> bool | None:
    targets = {path.rpartition("/")[2] for path in host.glob("/usr/local/cuda/targets/*-linux")}
    if "sbsa-linux" in targets:
        return True
    return None if release is None else release.sbsa


def _ubuntu(host: Host) -> str | None:
    found = re.search(r'^VERSION_ID="?([\d.]+)', host.text("/etc/os-release") or "", re.MULTILINE)
    return None if found is None else found[1]


def _first_line(host: Host, *command: str) -> str | None:
    answer = host.run(*command)
    return None if answer is None or answer.code != 0 else answer.out.strip().partition("\n")[0] or None


def _l4t_conflicts(from_file: str | None, from_package: str | None, kernel: str | None, inside: bool) -> list[str]:
    found = []
    if from_file and from_package and from_file != from_package:
        found.append(f"{RELEASE_FILE} says L4T {from_file}, the package nvidia-l4t-core says {from_package}")
    l4t = from_file or from_package
    majors = majors_of_kernel(kernel or "")
    if l4t and majors and l4t.split(".")[0] not in majors:
        where = "this container was made for another L4T than the board runs" if inside else "half an upgrade?"
        found.append(f"L4T {l4t} but the kernel {kernel} is of R{' or R'.join(majors)}: {where}")
    return found


def _cuda_conflicts(cuda: str | None, release: Release | None) -> list[str]:
    if cuda is None or release is None or cuda.split(".")[0] == release.cuda.split(".")[0]:
        return []
    return [f"CUDA {cuda} is installed, JetPack {release.jetpack} comes with {release.cuda}"]
