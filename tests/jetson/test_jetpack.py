"""L4T version lines and the release table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orinspect_jetson.jetpack import majors_of_kernel, parse_package_version, parse_release_line, release_of, releases

TAIL = "GCID: 1, BOARD: generic, EABI: aarch64"


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (f"# R32 (release), REVISION: 7.1, {TAIL}, DATE: Wed Feb  2 21:33:23 UTC 2022", "32.7.1"),
        (f"# R34 (release), REVISION: 1.1, {TAIL}", "34.1.1"),
        (f"# R36 (release), REVISION: 4.3, {TAIL}\n# KERNEL_VARIANT: oot", "36.4.3"),
        (f"\n\n# R38 (release), REVISION: 4.0, {TAIL}", "38.4.0"),
        (f"# R39 (release), REVISION: 2.1, {TAIL}, DATE: Fri Aug 7 05:54:22 AM UTC 2026", "39.2.1"),
        ("# R36 (release), REVISION: 5, x", "36.5.0"),
        ("not a release", None),
    ],
)
def test_release_line(line: str, version: str | None) -> None:
    assert parse_release_line(line) == version


@pytest.mark.parametrize(
    ("text", "version"),
    [("36.4.3-20250107174145", "36.4.3"), ("'35.1.0-2022'", "35.1.0"), ("39.2.0", "39.2.0"), ("", None), ("x-1", None)],
)
def test_package_version(text: str, version: str | None) -> None:
    assert parse_package_version(text) == version


@pytest.mark.parametrize(
    ("l4t", "jetpack", "is_exact"),
    [
        ("32.7.4", "4.6.x", True),
        ("35.4.1", "5.1.2", True),
        ("36.4.7", "6.2.1", True),
        ("36.4.9", "6.2.1", False),
        ("36.9.0", "6.2.2", False),
        ("39.2.1", "7.2.1", True),
        ("39.1.0", "7.2 EA", False),
        ("41.0.0", None, False),
        ("34.1.1", None, False),
    ],
)
def test_release_of(l4t: str, jetpack: str | None, is_exact: bool) -> None:
    release, exact = release_of(l4t)
    assert (None if release is None else release.jetpack) == jetpack
    assert exact is is_exact


def test_table_is_ordered_and_every_release_finds_itself() -> None:
    numbers = [[int(part) for part in release.l4t.split(".")] for release in releases()]
    assert numbers == sorted(numbers)
    assert all(release_of(release.l4t) == (release, True) for release in releases())


def test_kernels() -> None:
    assert majors_of_kernel("5.15.148-tegra") == ("36",)
    assert majors_of_kernel("6.8.12-1021-tegra") == ("38", "39")
    assert majors_of_kernel("6.18.1") == ()


@given(st.text(max_size=120))
def test_no_text_raises(text: str) -> None:
    for parsed in (parse_release_line(text), parse_package_version(text)):
        if parsed is not None:
            release_of(parsed)
    majors_of_kernel(text)
