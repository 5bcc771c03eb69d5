"""Another recipe for a running loop, and its memory over restarts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra `watch` is not installed")

from site_of_tests import wait_for

from orinspect_edge_runtime.errors import CheckFailed, ConfigError
from orinspect_edge_runtime.features import Features
from orinspect_edge_runtime.fit import fit_features
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.watch.config import TriggerConfig, WatchConfig, make_config
from orinspect_edge_runtime.watch.http.choice import FILE, chosen_recipe, keep_choice
from orinspect_edge_runtime.watch.http.switch import Switch
from orinspect_edge_runtime.watch.judge import Judge
from orinspect_edge_runtime.watch.trigger import Trigger

Site = Any


def test_the_next_frame_is_judged_by_the_other_recipe(open_site: Callable[..., Site]) -> None:
    site = open_site()
    assert site.feed("test/good/00.png")[0]["recipe"] == "part"
    assert site.ask("POST", "/api/recipes/other/run").json == {"running": "other"}
    assert site.feed("test/good/01.png")[0]["recipe"] == "other"
    scored = site.ask("POST", "/api/score", (site.pictures / "test/good/02.png").read_bytes()).json
    assert scored["recipe"] == "other"
    assert site.ask("POST", "/api/recipes/part/run").json == {"running": "part"}
    assert site.ask("POST", "/api/score", (site.pictures / "test/good/02.png").read_bytes()).json["recipe"] == "part"
    site.ask("POST", "/api/recipes/other/run")
    site.close_and_start_again()
    assert site.get("/api/recipes")["running"] == "other"


def test_a_choice_that_cannot_be_kept_changes_nothing(open_site: Callable[..., Site]) -> None:
    site = open_site()
    (site.folder / "http" / FILE).mkdir()
    answer = site.ask("POST", "/api/recipes/other/run")
    assert (answer.status, "cannot write" in answer.json["error"]) == (400, True)
    assert site.get("/api/recipes")["running"] == "part"


def test_a_switch_that_meets_a_reload_is_refused(open_site: Callable[..., Site], monkeypatch: Any) -> None:
    site = open_site()
    hand_over, before, handed = site.watch.hand_over, site.watch.judge, []

    def after_a_reload(judge: Judge, made_for: WatchConfig) -> None:
        site.watch.config = replace(site.watch.config)
        handed.append(judge)
        hand_over(judge, made_for)

    monkeypatch.setattr(site.watch, "hand_over", after_a_reload)
    with pytest.raises(CheckFailed, match="read again at the same moment: try again"):
        site.service.switch.to("other")
    wait_for(site.watch._judges.empty)
    assert site.feed("test/good/00.png")[0]["recipe"] == "part"
    assert site.watch.judge is before
    assert handed[0] is not before


def test_the_configuration_goes_first_once_it_was_edited(tmp_path: Path) -> None:
    values = {
        "source": {"location": "in"},
        "recipe": {"bundle": "b", "name": "part"},
        "http": {"folder": str(tmp_path)},
    }
    config = make_config(values)
    assert chosen_recipe(config).name == "part"
    keep_choice(config, tmp_path, "other")
    assert chosen_recipe(config).name == "other"
    assert chosen_recipe(make_config(values | {"recipe": {"bundle": "b", "name": "third"}})).name == "third"
    assert chosen_recipe(make_config({name: values[name] for name in ("source", "recipe")})).name == "part"
    for damaged in ("", "{}", '{"name": "../x", "instead_of": {}}', "[1]", '{"name": 1, "instead_of": 2}'):
        (tmp_path / FILE).write_text(damaged)
        with pytest.raises(ConfigError, match="damaged; remove it"):
            chosen_recipe(config)


def test_a_recipe_that_is_open_is_taken_at_once(open_site: Callable[..., Site]) -> None:
    site = open_site()
    site.close()
    site.values["recipe"]["also"] = ["other"]
    site.start()
    judge = site.watch.judge
    assert site.ask("POST", "/api/recipes/other/run").json == {"running": "other"}
    assert site.watch.judge is judge
    assert site.feed("test/good/01.png")[0]["recipe"] == "other"
    site.close_and_start_again()
    assert sorted(site.watch.judge.recipes) == ["other", "part"]
    assert site.get("/api/recipes")["running"] == "other"


def test_a_trigger_by_http_gets_its_event(open_site: Callable[..., Site]) -> None:
    site = open_site()
    site.watch.trigger = Trigger(TriggerConfig(late_s=0.1), ("part",))
    assert "no recipe 'none' is open" in site.ask("POST", "/api/trigger", {"recipe": "none"}).json["error"]
    assert site.ask("POST", "/api/trigger", {"recipe": "part"}).json == {"taken": True}
    wait_for(lambda: site.rows == 1)
    (verdict,) = site.get("/api/verdicts")["verdicts"]
    assert (verdict["trigger"], verdict["outcome"]) == ("http", "failed"), "this source has no frame for it"


@pytest.mark.parametrize("chosen", [{}, {"rank": 2}, {"likelihood_ratio": True}, {"rank": 1, "likelihood_ratio": True}])
def test_a_part_is_taught_with_the_gaussians_of_the_recipe_that_runs(
    chosen: dict[str, Any], tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    features = Features(np.zeros((6, 9), np.float32), rng.standard_normal((6, 16, 3)).astype(np.float32))
    fitted = fit_features(features, FitOptions("padim", groups=1, **chosen), changes=np.eye(3, dtype=np.float32))
    options = taught_like(tiny_recipe(scorer="padim", arrays=fitted.arrays, false_alarm=0.01), tmp_path)
    assert options == FitOptions("padim", **chosen)


@pytest.mark.parametrize(
    "chosen", [{}, {"neighbours": 3, "components": 2}, {"reweight": 9, "distance": "cosine", "projection": "none"}]
)
def test_a_part_is_taught_with_the_bank_of_the_recipe_that_runs(
    chosen: dict[str, Any], tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    features = Features(np.zeros((6, 9), np.float32), rng.standard_normal((6, 16, 3)).astype(np.float32))
    fitted = fit_features(features, FitOptions(groups=1, **chosen))
    options = taught_like(tiny_recipe(arrays=fitted.arrays, false_alarm=0.01), tmp_path)
    assert options == FitOptions(**chosen)


def taught_like(recipe: Recipe, folder: Path) -> FitOptions:
    config = SimpleNamespace(recipe=SimpleNamespace(backend="auto"))
    watch: Any = SimpleNamespace(judge=SimpleNamespace(product=SimpleNamespace(recipe=recipe)), config=config)
    return Switch(watch, folder).fit_options()
