"""The recipe that somebody chose over HTTP, kept over restarts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.errors import ConfigError
from orinspect_edge_runtime.recipe import check_name
from orinspect_edge_runtime.watch.config import RecipeConfig, WatchConfig

FILE = "recipe.json"


def chosen_recipe(config: WatchConfig) -> RecipeConfig:
    """The [recipe] to run with the name that was chosen last; a table that was edited since then goes first.

    Raises ConfigError when the note of the choice is damaged: another recipe must not judge in its place unnoticed.
    """
    if config.http is None:
        return config.recipe
    file = Path(config.http.folder) / FILE
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        name, of = check_name(told["name"]), told["instead_of"]
    except FileNotFoundError:
        return config.recipe
    except Exception as error:
        raise ConfigError(f"{file}: damaged; remove it to run the recipe of the configuration") from error
    return with_name(config.recipe, name) if of == as_json(config.recipe) else config.recipe


def with_name(recipe: RecipeConfig, name: str) -> RecipeConfig:
    """The table with another recipe in use; with `also`, the one before stays open for triggers that name it."""
    also = [n for n in dict.fromkeys((recipe.name, *recipe.also)) if n != name] if recipe.also else []
    return dataclasses.replace(recipe, name=name, also=tuple(also))


def as_json(recipe: RecipeConfig) -> Any:
    """The table as a JSON file gives it back."""
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def keep_choice(config: WatchConfig, folder: Path, name: str) -> None:
    """Note durably that `name` runs in place of the configuration's recipe. Raises InputError when it cannot."""
    told = {"name": name, "instead_of": as_json(config.recipe)}
    durable.write_bytes(folder / FILE, json.dumps(told, indent=2).encode())
