"""Picture sheets: every kind with its own images, and honest about files that are gone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.sheets import group_sheets


@pytest.fixture
def two_kinds(
    real_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orinspect: Callable[..., Any]
) -> Path:
    """A bundle fitted on 20 dark and 24 bright pictures in ./good."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(real_bundle, "bundle")
    Path("good").mkdir()
    rng = np.random.default_rng(0)
    for number in range(44):
        low = 30 if number < 20 else 200
        pixels = rng.integers(low, low + 20, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"good/{'dark' if number < 20 else 'bright'}{number:02d}.png")
    assert orinspect("fit", "bundle", "good", "--groups", "2").code == 0
    return Path("bundle")


def test_each_kind_is_told_and_shown(two_kinds: Path, orinspect: Callable[..., Any]) -> None:
    kinds = json.loads(orinspect("recipe", "groups", two_kinds, "--json").out)
    assert [len(kind) for kind in kinds] == [24, 20], "the largest first"
    assert all("bright" in name for name in kinds[0]) and all("dark" in name for name in kinds[1])
    bundle = Bundle.open(two_kinds)
    sheets = group_sheets(bundle.recipe(), bundle.manifest.preprocess, shown=5)
    assert [(sheet.title, sheet.images, sheet.missing) for sheet in sheets] == [
        ("Kind 1: 24 images", 24, 0),
        ("Kind 2: 20 images", 20, 0),
    ]
    assert [len(sheet.pictures) for sheet in sheets] == [5, 5]
    assert all(name.startswith("dark") for _, name in sheets[1].pictures)
    assert sheets[1].pictures[0][0].startswith("data:image/png;base64,")


def test_the_page_shows_what_is_still_there(two_kinds: Path, orinspect: Callable[..., Any]) -> None:
    pytest.importorskip("jinja2")
    for path in Path("good").glob("dark*"):
        path.unlink()
    done = orinspect("recipe", "groups", two_kinds, "--sheet", "kinds.html")
    page = Path("kinds.html").read_text("utf-8")
    assert done.code == 0 and "kind 2: 20 images" in done.out
    assert "Kind 1: 24 images" in page and "bright20.png" in page and "dark00.png" not in page
    assert "10 of the pictures to be shown cannot be read here" in page


def test_edits_keep_the_kinds_in_step(two_kinds: Path, orinspect: Callable[..., Any]) -> None:
    Image.fromarray(np.full((32, 32, 3), 120, np.uint8)).save("new.png")
    before = json.loads(orinspect("recipe", "groups", two_kinds, "--json").out)
    assert orinspect("recipe", "add", two_kinds, "new.png").code == 0
    assert orinspect("recipe", "forget", two_kinds, "dark03.png").code == 0
    after = json.loads(orinspect("recipe", "groups", two_kinds, "--json").out)
    assert set().union(*after) == set().union(*before, {"new.png"}) - {"good/dark03.png"}
    (row,) = json.loads(orinspect("recipe", "list", two_kinds, "--json").out)
    assert row["group_sizes"] == [len(kind) for kind in after]


def test_a_recipe_of_an_older_format_has_no_sheets(
    two_kinds: Path, orinspect: Callable[..., Any], tiny_recipe: Callable[..., Any]
) -> None:
    bundle = Bundle.open(two_kinds).add_recipe(tiny_recipe())
    assert group_sheets(bundle.recipe(), bundle.manifest.preprocess) == ()
    refused = orinspect("recipe", "groups", two_kinds)
    assert refused.code == 2 and "fit it again" in refused.err
