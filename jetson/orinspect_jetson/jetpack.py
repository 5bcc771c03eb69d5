"""The table of JetPack releases: data/jetpacks.json, typed, and what an L4T version says."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from orinspect_jetson.modules import read_data

RELEASE_LINE = re.compile(r"#\s*R(\d{1,4})\s*\(release\),\s*REVISION:\s*(\d{1,4}(?:\.\d{1,4}){0,2})")
PACKAGE_VERSION = re.compile(r"^'?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?:-|'|\s|$)")


@dataclass(frozen=True)
class Release:
    """One JetPack release. None: not known. sbsa: the user space is the server one (JetPack 7)."""

    l4t: str
    jetpack: str
    ubuntu: str
    kernel: str
    python: str
    cuda: str
    cudnn: str | None
    tensorrt: str
    chips: tuple[str, ...]
    sbsa: bool


@functools.cache
def releases() -> tuple[Release, ...]:
    """All releases, oldest first."""
    rows = read_data("jetpacks.json")["releases"]
    return tuple(Release(**{**row, "chips": tuple(row["chips"])}) for row in rows)


def parse_release_line(text: str) -> str | None:
    """L4T version of /etc/nv_tegra_release: "# R36 (release), REVISION: 4.3, ..." -> "36.4.3"; None for other text."""
    found = RELEASE_LINE.search(text)
    return None if found is None else _three(f"{found[1]}.{found[2]}")


def parse_package_version(text: str) -> str | None:
    """L4T version of the package nvidia-l4t-core: "36.4.3-20250107174145" -> "36.4.3"."""
    found = PACKAGE_VERSION.match(text.strip())
    return None if found is None else ".".join(part or "0" for part in found.groups())


def release_of(l4t: str) -> tuple[Release | None, bool]:
    """The row of an L4T version, and whether it is exactly that release.

    A release newer than the table gets the newest older row of its major (R36.4.9 behaves like R36.4.7), with False.
    """
    wanted = _numbers(l4t)
    older = None
    for release in releases():
        have = _numbers(release.l4t)
        if have == wanted[: len(have)] and len(release.l4t.split(".")) < 3:
            return release, True
        if have == wanted:
            return release, True
        if have[0] == wanted[0] and have <= wanted:
            older = release
    return older, False


def majors_of_kernel(kernel: str) -> tuple[str, ...]:
    """L4T majors whose kernel has that version: "5.15.148-tegra" -> ("36",). Empty when none has."""
    version = ".".join(kernel.split(".")[:2])
    return tuple(dict.fromkeys(r.l4t.split(".")[0] for r in releases() if r.kernel == version))


def _three(version: str) -> str:
    return ".".join([*version.split("."), "0", "0"][:3])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
