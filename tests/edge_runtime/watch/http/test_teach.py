"""Teach mode: from good frames to a recipe that judges, and every way it can go wrong."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra `watch` is not installed")

from site_of_tests import wait_for

from orinspect_edge_runtime.alignment import Align
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.fit import fit_recipe
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.preprocess import read_frame
from orinspect_edge_runtime.watch.http.teach import Lesson

Site = Any
GOOD = [f"train/good/{number:02d}.png" for number in range(24)]


def start(site: Site, frames: int, **more: Any) -> Any:
    return site.ask("POST", "/api/teach", {"name": "taught", "frames": frames, "every_s": 0} | more)


def until(site: Site, *states: str) -> dict[str, Any]:
    def told() -> dict[str, Any] | None:
        now: dict[str, Any] = site.get("/api/teach")
        return now if now["state"] in states else None

    return dict(wait_for(told))


def test_good_parts_become_the_recipe_that_judges(open_site: Callable[..., Site]) -> None:
    site = open_site()
    assert start(site, 8).status == 202
    assert "a teach is under way" in start(site, 8).json["error"]
    site.feed(*GOOD[:8])
    done = until(site, "done", "failed")
    assert (done["state"], done["taken"], done["progress"], done["error"]) == ("done", 8, 1.0, "")
    assert site.get("/api/recipes") == {"recipes": ["other", "part", "taught"], "running": "taught"}
    recipe = Bundle.open(site.folder / "bundle").recipe("taught")
    running = site.watch.judge.detector.recipe
    assert (recipe.good_images, recipe.scorer, recipe.false_alarm) == (8, running.scorer, running.false_alarm)
    (verdict,) = site.feed("test/blot/00.png")
    assert (verdict["recipe"], verdict["outcome"]) == ("taught", "reject")
    site.close_and_start_again()
    assert site.get("/api/recipes")["running"] == "taught"


def test_a_cancelled_teach_goes_on_later(open_site: Callable[..., Site]) -> None:
    site = open_site()
    start(site, 6)
    site.feed(*GOOD[:4])
    wait_for(lambda: site.get("/api/teach")["taken"] == 4)
    assert site.ask("DELETE", "/api/teach").status == 200
    assert until(site, "cancelled")["taken"] == 4
    site.feed(*GOOD[4:6])
    assert site.get("/api/teach")["taken"] == 4
    start(site, 6, go_on=True)
    site.feed(*GOOD[6:8])
    assert until(site, "done", "failed")["taken"] == 6
    assert Bundle.open(site.folder / "bundle").recipe("taught").good_images == 6


def test_a_killed_fit_loses_nothing(open_site: Callable[..., Site]) -> None:
    site = open_site()
    start(site, 5)
    site.feed(*GOOD[:4])
    teach = site.service.teach
    site.feed(GOOD[4])
    os.kill(wait_for(lambda: teach._child).pid, signal.SIGKILL)
    failed = until(site, "failed", "done")
    assert (failed["state"], failed["error"]) == ("failed", "fitting failed (exit code -9)")
    assert site.get("/api/recipes") == {"recipes": ["other", "part"], "running": "part"}
    assert site.feed("test/blot/00.png")[0]["recipe"] == "part"
    start(site, 5, go_on=True)
    assert until(site, "failed", "done")["state"] == "done"


def test_a_fit_that_fails_says_why(open_site: Callable[..., Site]) -> None:
    site = open_site()
    site.service.teach._fit_options = lambda: FitOptions(precision="fp64")
    start(site, 4)
    site.feed(*GOOD[:4])
    failed = until(site, "failed", "done")
    assert failed["state"] == "failed" and "fp64" in failed["error"]
    assert site.get("/api/recipes")["running"] == "part"
    assert len(list((site.folder / "http/teach/taught").glob("*.png"))) == 4


def test_a_recipe_taught_anew_keeps_its_mask_its_review_band_and_its_place(open_site: Callable[..., Site]) -> None:
    site = open_site()
    bundle, mask = Bundle.open(site.folder / "bundle"), np.zeros((32, 32), bool)
    mask[:, :16] = True
    frames = (read_frame(site.pictures / name, bundle.manifest.preprocess) for name in GOOD)
    options = FitOptions(false_alarm=0.1, review_alarm=0.3, align=5.0)
    bundle.add_recipe(fit_recipe(bundle, frames, "part", options, mask=mask))
    assert site.ask("POST", "/api/recipes/part/run").status == 200
    start(site, 8, name="part", replace=True)
    site.feed(*GOOD[:8])
    assert until(site, "done", "failed")["error"] == ""
    taught = Bundle.open(site.folder / "bundle").recipe("part")
    assert (taught.good_images, taught.false_alarm, taught.review_alarm) == (8, 0.1, 0.3)
    assert np.array_equal(taught.arrays["mask"], mask) and taught.align == Align(5.0)
    assert site.watch.judge.product.recipe.review_threshold == taught.review_threshold


def test_a_lesson_has_bounds() -> None:
    for wrong in ({"frames": 1}, {"frames": 2001}, {"every_s": -1.0}, {"every_s": float("nan")}, {"name": "../up"}):
        with pytest.raises(InputError):
            Lesson(**{"name": "x"} | wrong)
