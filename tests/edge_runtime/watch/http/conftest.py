"""Sites for the tests of HTTP: see site_of_tests.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from site_of_tests import Site, wait_for

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.fit import fit_recipe
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.preprocess import list_images, read_frame


@pytest.fixture(scope="session")
def two_recipes(real_bundle: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the recipes `part` and `other`. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("http") / "bundle"
    copytree(real_bundle, folder)
    made = Bundle.open(folder)
    frames = [read_frame(path, made.manifest.preprocess) for path in list_images([pictures / "train"])]
    for name, count in (("part", 24), ("other", 12)):
        made = made.add_recipe(fit_recipe(made, iter(frames[:count]), name, FitOptions()))
    return folder


@pytest.fixture
def open_site(tmp_path: Path, two_recipes: Path, pictures: Path) -> Iterator[Callable[..., Site]]:
    """Start a site; keyword arguments are keys of [http]."""
    pytest.importorskip("starlette", reason="the extra `watch` is not installed")
    sites: list[Site] = []

    def start(**http_table: Any) -> Site:
        sites.append(Site(tmp_path / f"site{len(sites)}", two_recipes, pictures, **http_table))
        return sites[-1]

    yield start
    for site in sites:
        site.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, two_recipes: Path, pictures: Path) -> Iterator[Site]:
    """One site for the tests of a file that leave it as it is."""
    pytest.importorskip("starlette", reason="the extra `watch` is not installed")
    opened = Site(tmp_path_factory.mktemp("site") / "line", two_recipes, pictures)
    opened.feed("test/good/00.png", "test/good/01.png", "test/blot/00.png")
    wait_for(lambda: opened.get("/api/status")["frames"] == 3)
    yield opened
    opened.close()
