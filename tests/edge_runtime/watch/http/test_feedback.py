"""This was fine: a reject enters the recipe, and leaves it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from shutil import copytree
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra `watch` is not installed")

from site_of_tests import wait_for

from orinspect_edge_runtime.bundle import Bundle

Site = Any


def test_a_false_alarm_is_learnt_and_taken_back(open_site: Callable[..., Site]) -> None:
    site = open_site()
    before = Bundle.open(site.folder / "bundle").recipe("part")
    (reject,) = site.feed("test/blot/00.png")
    edit = site.ask("POST", f"/api/verdicts/{reject['id']}/fine", {"note": "a reflex"}).json
    assert (edit["kind"], edit["note"], edit["image"]) == ("add", "a reflex", f"verdict {reject['id']}")
    assert edit["score_before"] == pytest.approx(reject["score"], rel=1e-5)
    (again,) = site.feed("test/blot/00.png")
    assert (again["outcome"], again["score"]) == ("accept", pytest.approx(edit["score_after"], abs=1e-4))
    assert again["recipe_sha256"] != reject["recipe_sha256"]
    twice = site.ask("POST", f"/api/verdicts/{reject['id']}/fine", {})
    assert (twice.status, "was marked as good" in twice.json["error"]) == (400, True)
    assert [one["kind"] for one in site.get("/api/recipes/part/history")["edits"]] == ["add"]
    assert site.ask("POST", "/api/recipes/part/undo").json["kind"] == "undo"
    (third,) = site.feed("test/blot/00.png")
    assert (third["outcome"], third["score"]) == ("reject", reject["score"])
    after = Bundle.open(site.folder / "bundle").recipe("part")
    assert {name: array.tobytes() for name, array in after.arrays.items()} == {
        name: array.tobytes() for name, array in before.arrays.items()
    }
    nothing = site.ask("POST", "/api/recipes/part/undo")
    assert (nothing.status, "has no edit to undo" in nothing.json["error"]) == (409, True)


def test_a_recipe_that_does_not_run_is_taught_beside_the_line(open_site: Callable[..., Site]) -> None:
    site = open_site()
    (reject,) = site.feed("test/blot/00.png")
    site.ask("POST", "/api/recipes/other/run")
    judge = site.watch.judge
    assert site.ask("POST", f"/api/verdicts/{reject['id']}/fine", {}).status == 200
    assert site.watch.judge is judge, "the line was not touched"
    assert site.ask("POST", "/api/recipes/part/run").status == 200
    assert site.feed("test/blot/00.png")[0]["outcome"] == "accept"


def test_what_is_not_kept_cannot_be_learnt(open_site: Callable[..., Site]) -> None:
    site = open_site(kept_frames=1)
    first, second = reversed(site.feed("test/blot/00.png", "test/blot/01.png"))
    (good,) = site.feed("test/good/00.png")
    for verdict, status in ((good, 404), (second, 200)):
        assert site.ask("POST", f"/api/verdicts/{verdict['id']}/fine", {}).status == status
    gone = site.ask("POST", f"/api/verdicts/{first['id']}/fine", {})
    assert (gone.status, "is not kept (any more)" in gone.json["error"]) == (404, True)
    assert site.ask("POST", "/api/verdicts/none/fine", {}).status == 404


def test_after_a_reload_the_bundle_that_runs_now_is_taught(open_site: Callable[..., Site]) -> None:
    site = open_site()
    (reject,) = site.feed("test/blot/00.png")
    first, second = site.folder / "bundle", site.folder / "second"
    copytree(first, second)
    site.values["recipe"]["bundle"] = str(second)
    tables = [
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in site.values.items()
        if name != "status"
    ]
    site.file.write_text(f"status = {json.dumps(site.values['status'])}\n" + "".join(tables))
    judge, before = site.watch.judge, (first / "manifest.json").read_bytes()
    site.watch._reload = True
    wait_for(lambda: site.watch.judge is not judge)
    assert site.ask("POST", f"/api/verdicts/{reject['id']}/fine", {}).status == 200
    assert (first / "manifest.json").read_bytes() == before
    assert [edit.kind for edit in Bundle.open(second).recipe("part").edits] == ["add"]
    assert site.feed("test/blot/00.png")[0]["outcome"] == "accept"
